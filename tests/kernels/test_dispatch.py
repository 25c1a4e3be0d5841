from __future__ import annotations

import sys
from types import SimpleNamespace

import pytest
import torch

from cryoplug.kernels.dispatch import choose_blocks, choose_for_device, choose_kernels, kernels_were_tested
from cryoplug.models.cryo_cnn import build
from cryoplug.models.residual_cnn import build as build_residual
from cryoplug.models.unet import build as build_unet

CPU, GPU = torch.device("cpu"), torch.device("cuda", 0)


@pytest.fixture
def hopper(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CRYOPLUG_KERNELS", raising=False)
    monkeypatch.setattr("torch.version.cuda", "13.0")
    monkeypatch.setattr("torch.cuda.get_device_capability", lambda device: (9, 0))
    monkeypatch.setattr("importlib.util.find_spec", lambda name: object())
    monkeypatch.delenv("CC", raising=False)
    monkeypatch.setattr("shutil.which", lambda name: f"/usr/bin/{name}")


@pytest.mark.usefixtures("hopper")
def test_a_tested_gpu_gets_the_fused_kernels() -> None:
    assert choose_kernels(build(), GPU).kernels == "fused"


@pytest.mark.usefixtures("hopper")
def test_the_cpu_never_gets_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    choice = choose_kernels(build(), CPU)
    assert (choice.kernels, choice.reason) == ("plain", "the fused kernels need an NVIDIA GPU")


@pytest.mark.usefixtures("hopper")
def test_another_network_or_precision_gets_the_plain_layers() -> None:
    assert "cryo_cnn alone" in choose_kernels(build_residual(), GPU).reason
    assert "not float32" in choose_kernels(build().double(), GPU).reason


@pytest.mark.usefixtures("hopper")
def test_another_card_gets_the_plain_layers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.get_device_capability", lambda device: (7, 5))
    assert choose_for_device(GPU).reason == "compute capability 7.5 (tested with the fused kernels: 9.0)"
    monkeypatch.setattr("torch.version.cuda", None)
    assert "this kind of GPU" in choose_for_device(GPU).reason


@pytest.mark.usefixtures("hopper")
def test_without_triton_the_plain_layers_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert "triton is not installed" in choose_for_device(GPU).reason


@pytest.mark.usefixtures("hopper")
def test_the_plain_layers_can_be_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CRYOPLUG_KERNELS", "plain")
    assert choose_for_device(GPU).reason == "CRYOPLUG_KERNELS=plain"


@pytest.mark.usefixtures("hopper")
def test_a_unet_goes_in_blocks_on_a_tested_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    assert choose_blocks(build_unet(), GPU).kernels == "blocks"
    assert choose_blocks(build_unet(), CPU).reason == "the fused kernels need an NVIDIA GPU"
    assert choose_blocks(build_residual(), GPU).reason.endswith("it is not a unet")
    assert choose_blocks(build_unet(norm="group"), GPU).reason.endswith("it has a norm")
    monkeypatch.setenv("CRYOPLUG_KERNELS", "plain")
    assert choose_blocks(build_unet(), GPU).reason == "CRYOPLUG_KERNELS=plain"


@pytest.mark.usefixtures("hopper")
def test_without_a_compiler_the_plain_layers_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.which", lambda name: None)
    assert "no C compiler" in choose_for_device(GPU).reason
    assert "no C compiler" in choose_blocks(build_unet(), GPU).reason
    monkeypatch.setenv("CC", "/opt/cc")
    assert choose_for_device(GPU).kernels == "fused"


@pytest.mark.usefixtures("hopper")
@pytest.mark.parametrize("builds", [True, False])
def test_kernels_of_layers_that_cannot_be_built_are_left(monkeypatch: pytest.MonkeyPatch, builds: bool) -> None:
    def build(*arguments: object, **options: object) -> None:
        if not builds:
            raise RuntimeError("no C compiler")

    monkeypatch.setitem(sys.modules, "cryoplug.kernels.triton_trained", SimpleNamespace(repeat_pixels={(1,): build}))
    monkeypatch.setattr(
        "cryoplug.kernels.triton_trained", sys.modules["cryoplug.kernels.triton_trained"], raising=False
    )
    monkeypatch.setattr(torch, "zeros", lambda *shape, device: None)
    assert kernels_were_tested.__wrapped__(GPU) == builds
