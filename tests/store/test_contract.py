"""Both backends, in both types, keep the laws of a store."""

from __future__ import annotations

from cryoplug.testing import StoreContract


class TestBinsOfFloat32(StoreContract):
    format, dtype = "bin", "float32"


class TestBinsOfFloat16(StoreContract):
    format, dtype = "bin", "float16"


class TestHdf5OfFloat32(StoreContract):
    format, dtype = "hdf5", "float32"


class TestHdf5OfFloat16(StoreContract):
    format, dtype = "hdf5", "float16"
