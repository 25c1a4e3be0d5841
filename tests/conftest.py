"""Fixtures that all tests share."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import hypothesis
import pytest

# Without a GPU, the kernels run in Triton's interpreter; Triton must know before anything imports it.
if not Path("/dev/nvidia0").exists():
    os.environ["TRITON_INTERPRET"] = "1"
# The same examples every time where a red build must mean a change; new ones elsewhere.
hypothesis.settings.register_profile("ci", derandomize=True)
if os.environ.get("CI"):
    hypothesis.settings.load_profile("ci")


def _shared() -> Path:
    named = os.environ.get("CRYOPLUG_SHARED")
    return Path(named) if named else Path(__file__).resolve().parents[2] / "shared"


@pytest.fixture(autouse=True)
def fixed_torch_seed() -> None:
    """Give every test the same random tensors, where torch is loaded at all."""
    if "torch" in sys.modules:
        sys.modules["torch"].manual_seed(0)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder of real micrographs and odd files (CRYOPLUG_SHARED/data, or ../shared/data beside the checkout)."""
    folder = _shared() / "data"
    if not folder.is_dir():
        pytest.skip("no shared data: set CRYOPLUG_SHARED to the folder that holds data/")
    return folder


@pytest.fixture(scope="session")
def seed_checkpoints() -> Path:
    """Folder of the founding program's own weights."""
    folder = _shared() / "seed_checkpoints"
    if not folder.is_dir():
        pytest.skip("no seed checkpoints: set CRYOPLUG_SHARED to the folder that holds seed_checkpoints/")
    return folder


@pytest.fixture(scope="session")
def plain_program() -> Path:
    """Path of the plain PyTorch training program that cryoplug is compared with."""
    path = _shared() / "reference" / "plain_pytorch_train.py"
    if not path.is_file():
        pytest.skip("no plain program: set CRYOPLUG_SHARED to the folder that holds reference/")
    return path
