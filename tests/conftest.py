"""Fixtures that all tests share."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import pytest

from warm_start import WarmStart

# Workers side by side: one thread each, or they fight about the cores. Before anything imports torch.
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")

# Without a GPU, the kernels run in Triton's interpreter; Triton must know before anything imports it.
if not Path("/dev/nvidia0").exists():
    os.environ["TRITON_INTERPRET"] = "1"
# The same examples every time where a red build must mean a change; new ones elsewhere. No clock: a machine may be busy.
hypothesis.settings.register_profile(
    "cryoplug",
    derandomize=bool(os.environ.get("CI")),
    deadline=None,
    suppress_health_check=[hypothesis.HealthCheck.too_slow],
)
hypothesis.settings.load_profile("cryoplug")


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


@pytest.fixture(scope="session")
def warm_start() -> Iterator[WarmStart]:
    """Give a starter of processes whose imports are done: for tests that kill, stop or measure them."""
    server = WarmStart()
    yield server
    server.close()


@pytest.fixture
def general_model(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Put a tiny network with random weights where the general model is looked for, and give its folder."""
    from cryoplug.models import shipped

    folder = write_general_model(tmp_path_factory.mktemp("package") / "general")
    monkeypatch.setattr(shipped, "FOLDER", folder)
    return folder


@pytest.fixture
def no_general_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let this build have no general model."""
    from cryoplug.models import shipped

    monkeypatch.setattr(shipped, "FOLDER", tmp_path / "not-there")


@pytest.fixture
def no_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let `train` and `evaluate` draw nothing, where pictures are not the subject: they take longer than these runs."""
    from cryoplug.reports import evaluation_figures, figures

    monkeypatch.setattr(figures, "loss_curve", lambda *_: None)
    for name in ("evaluation_curves", "evaluation_panels"):
        monkeypatch.setattr(evaluation_figures, name, lambda *_: None)


def write_general_model(folder: Path) -> Path:
    """Write what the package ships, but tiny: a model with two outputs, its card, and in ``start`` one with one output."""
    import numpy as np

    from cryoplug.models.checkpoint import Checkpoint, rounded, save_checkpoint
    from cryoplug.models.registry import UNET

    rng = np.random.default_rng(7)
    details = {"angpix": 2.6, "angpix_range": [2.0, 5.0], "trained_on": "nothing: random weights"}
    small = {"depth": 1, "width": 4, "stem": 2, "skip": "none", "clip": 8.0}
    for path, config in ((folder, {**small, "outputs": 2, "most": 6}), (folder / "start", small)):
        shapes = UNET.configured(config).weight_shapes()
        weights = {name: (0.3 * rng.standard_normal(shape)).astype(np.float32) for name, shape in shapes.items()}
        checkpoint = rounded(Checkpoint("unet", weights, config, "robust", 2.6, details))
        save_checkpoint(path, checkpoint, 0.5, dtype="float16")
        (path / "loss.txt").unlink()
    (folder / "MODEL_CARD.md").write_text(
        "# A card\n\nWords.\n\n| fact | what |\n|---|---|\n| data | none |\n| licence | BSD-3-Clause |\n\n| other | no |\n"
    )
    return folder
