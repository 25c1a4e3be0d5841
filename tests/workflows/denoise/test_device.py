"""Memory and devices: what is too little, and what is not there."""

from __future__ import annotations

import json
from pathlib import Path

import mrcfile
import numpy as np
import pytest
import torch

from cryoplug.errors import DeviceError, UsageError
from cryoplug.inference.network.fastest import Network
from cryoplug.inference.network.memory_plan import parse_size
from cryoplug.kernels.block_unet import BlockUNet
from cryoplug.kernels.dispatch import KernelChoice
from cryoplug.models.checkpoint import Checkpoint, save_checkpoint
from cryoplug.models.registry import UNET
from cryoplug.workflows.denoise import DenoiseRequest, denoise
from workflows.denoise.denoising import go, micrographs, statuses


def test_too_little_memory_names_the_least_and_the_least_works(here, checkpoints):
    (path,) = micrographs(here, "a")
    go(checkpoints[0], path, output="free")
    with pytest.raises(UsageError, match="--max-memory 1MB: too little") as caught:
        go(checkpoints[0], path, max_memory_bytes=1_000_000)
    least = parse_size(str(caught.value).rpartition(" ")[2])
    assert statuses(go(checkpoints[0], path, max_memory_bytes=int(least * 1.2))) == ["done"]
    assert np.allclose(mrcfile.read("out/a.mrc"), mrcfile.read("free/a.mrc"), rtol=0, atol=1e-4)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
@pytest.mark.parametrize("named", [{"gpu": (0,)}, {"gpu": (7,)}, {"device": "cuda"}])
def test_a_gpu_that_was_asked_for_and_is_not_there_never_becomes_a_cpu(here, checkpoints, named):
    micrographs(here, "a")
    with pytest.raises(DeviceError, match="no GPU that this PyTorch can use") as caught:
        go(checkpoints[0], "a.mrc", **{"device": "auto", **named})
    assert caught.value.exit_code == 7 and not list(Path("out").glob("*.mrc"))


def test_a_cpu_run_on_a_machine_that_should_have_a_gpu_is_told(here, checkpoints, monkeypatch):
    micrographs(here, "a")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    notes: list[str] = []
    request = DenoiseRequest(("a.mrc",), checkpoints[0], Path("out"), overwrite=True)
    denoise(request, note=notes.append)
    assert notes == []
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3")
    denoise(request, note=notes.append)
    assert notes == ["CUDA_VISIBLE_DEVICES=3 names a GPU, but PyTorch finds none; computing on the CPU"]


def test_a_run_whose_kernels_cannot_be_built_goes_on_with_the_layers_and_says_how_it_computed(here, monkeypatch):
    paths, config = micrographs(here, "ab"), {"depth": 1, "width": 32, "outputs": 1}
    random = np.random.default_rng(0)
    shapes = {name: tensor.shape for name, tensor in UNET.build(config=config).state_dict().items()}
    weights = {name: random.normal(0, 0.08, shape).astype(np.float32) for name, shape in shapes.items()}
    save_checkpoint(here / "run" / "epoch_0001", Checkpoint("unet", weights, config, "zscore"), 0.5)
    go(here / "run", *paths, output="plain", tile=64, tta="on")
    real = Network.__init__

    def as_on_a_gpu(self: Network, *given: object, **named: object) -> None:
        real(self, *given, **named)  # type: ignore[arg-type]
        self.kernels, self.precision, self._half = KernelChoice("blocks", "as on a GPU"), "float16", torch.float16

    def no_compiler(*given: object) -> None:
        raise RuntimeError("Failed to find C compiler")

    monkeypatch.setattr(Network, "__init__", as_on_a_gpu)
    monkeypatch.setattr(BlockUNet, "__call__", no_compiler)
    notes: list[str] = []
    request = DenoiseRequest(
        tuple(map(str, paths)), here / "run", Path("out"), device="cpu", threads=2, tile=64, tta="on", previews=False
    )
    assert statuses(denoise(request, note=notes.append)) == ["done", "done"]
    assert sum("kernels could not be built (Failed to find C compiler)" in note for note in notes) == 1, "once a run"
    for path in paths:
        found, wanted = (mrcfile.read(folder / path.name) for folder in (Path("out"), Path("plain")))
        assert 0 < np.abs(found - wanted).max() < 5e-3 * np.ptp(wanted)
        with mrcfile.open(Path("out") / path.name) as file:
            assert "computed in float16 tta" in str(file.get_labels()[-1])
    lines = [json.loads(line) for line in Path("out/denoise.jsonl").read_text().splitlines()]
    assert [(line["status"], line["precision"], line["tta"]) for line in lines] == [("done", "float16", True)] * 2
