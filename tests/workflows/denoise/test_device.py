"""Memory and devices: what is too little, and what is not there."""

from __future__ import annotations

from pathlib import Path

import mrcfile
import numpy as np
import pytest
import torch

from cryoplug.errors import DeviceError, UsageError
from cryoplug.inference.network.memory_plan import parse_size
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
