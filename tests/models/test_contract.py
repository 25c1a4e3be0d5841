"""The networks of cryoplug keep the laws that plugins are held to."""

from __future__ import annotations

from cryoplug.models.registry import CRYO_CNN, RESIDUAL_CNN, UNET
from cryoplug.testing import ModelContract


class TestCryoCNN(ModelContract):
    spec = CRYO_CNN


class TestResidualCNN(ModelContract):
    spec = RESIDUAL_CNN


class TestUNet(ModelContract):
    spec = UNET
    config = {"depth": 2, "width": 3}


class TestShallowUNet(ModelContract):
    spec = UNET
    config = {"depth": 1, "width": 5}


class TestUNetWithGroupNorm(ModelContract):
    spec = UNET
    config = {"depth": 2, "width": 8, "norm": "group"}


class TestUNetWithStem(ModelContract):
    spec = UNET
    config = {"depth": 1, "width": 6, "stem": 2, "skip": "none"}


class TestUNetWithTwoOutputs(ModelContract):
    spec = UNET
    config = {"depth": 2, "width": 3, "stem": 2, "skip": "none", "outputs": 2, "clip": 1.5, "most": 5}
