"""What the arithmetic of a step says when memory runs out, and that a batch can be left in the middle."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from cryoplug.errors import DeviceError
from cryoplug.models.registry import model_spec
from cryoplug.training.engine import BandEngine, WholeBatchEngine, choose_precision, open_engine


class Full(nn.Module):
    """Has room for nothing."""

    def __init__(self, error: Exception) -> None:
        super().__init__()
        self.layer = nn.Conv2d(1, 16, 3, padding=1)
        self._error = error

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        raise self._error


ERRORS = [
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.\nlong advice"),
    MemoryError("Unable to allocate 2 GiB"),
    RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 7 bytes"),
    RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
]


@pytest.mark.parametrize("error", ERRORS, ids=["torch", "python", "cpu", "cudnn"])
@pytest.mark.parametrize("step", ["loss", "loss_and_gradients"])
def test_memory_that_does_not_suffice_names_the_need_and_what_to_give(error: Exception, step: str) -> None:
    engine = WholeBatchEngine(Full(error))
    batch = torch.zeros(8, 1, 1024, 1024)
    # 8 Mi pixels of 4 bytes: both images, 16 channels and a quarter of them for gradients.
    with pytest.raises(DeviceError, match=r"a batch of 8 images of 1024x1024 needs about 0\.7 GiB") as caught:
        getattr(engine, step)(batch, batch)
    assert "half the --batch-size" in str(caught.value) and "long advice" not in str(caught.value)
    assert caught.value.exit_code == 7


def test_a_single_patch_that_is_too_large_is_told_to_be_smaller() -> None:
    batch = torch.zeros(1, 1, 64, 64)
    with pytest.raises(DeviceError, match="give smaller patches"):
        WholeBatchEngine(Full(ERRORS[0])).loss(batch, batch)


def test_bands_say_so_too() -> None:
    spec = model_spec("cryo_cnn")
    batch = torch.zeros(2, 1, 64, 64)
    module = spec.build(seed=0)
    with open_engine(module, spec, device=torch.device("cpu"), threads=1) as engine:
        assert isinstance(engine, BandEngine)

        def full() -> None:
            raise torch.OutOfMemoryError("no room")

        with engine.looking(full), pytest.raises(DeviceError, match=r"half the --batch-size, or free memory"):
            engine.loss_and_gradients(batch, batch)


def test_another_error_is_not_taken_for_one_of_memory() -> None:
    batch = torch.zeros(1, 1, 8, 8)
    with pytest.raises(RuntimeError, match="a bug"):
        WholeBatchEngine(Full(RuntimeError("a bug"))).loss(batch, batch)


def test_a_batch_is_left_between_two_pieces_and_the_next_one_is_right() -> None:
    spec = model_spec("cryo_cnn")
    noisy, clean = torch.rand(4, 1, 300, 1024), torch.rand(4, 1, 300, 1024)
    with open_engine(spec.build(seed=0), spec, device=torch.device("cpu"), threads=2) as engine:
        wanted, _ = engine.loss_and_gradients(noisy, clean)
        pieces = []

        def look() -> None:
            pieces.append(1)
            if len(pieces) == 3:
                raise KeyError("enough")

        with engine.looking(look), pytest.raises(KeyError):
            engine.loss_and_gradients(noisy, clean)
        assert engine.loss_and_gradients(noisy, clean)[0] == wanted
        assert len(pieces) <= 8, "nothing is asked after the block"


@pytest.mark.parametrize("model", ["cryo_cnn", "residual_cnn", "unet"])
def test_bf16_rounds_layers_but_neither_weights_nor_loss(model: str) -> None:
    spec = model_spec(model).configured({})
    module = spec.build(seed=0).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    with torch.no_grad():
        for parameter in module.parameters():
            if not parameter.any():  # a fresh U-Net gives its input back
                parameter.add_(0.01)
    noisy, clean = torch.rand(2, 1, 16, 24), torch.rand(2, 1, 16, 24)
    exact, rounded = WholeBatchEngine(module), WholeBatchEngine(module, precision="bf16")
    (wanted, gradients), (found, rough) = (engine.loss_and_gradients(noisy, clean) for engine in (exact, rounded))
    assert found != wanted and found == pytest.approx(wanted, rel=0.02)
    assert all(gradient.dtype == torch.float32 for gradient in rough)
    a, b = (torch.cat([gradient.flatten() for gradient in item]) for item in (gradients, rough))
    assert 0 < float((a - b).norm() / a.norm()) < 0.05
    assert all(parameter.dtype == torch.float32 for parameter in module.parameters())
    assert rounded.loss(noisy, clean) == pytest.approx(wanted, rel=0.02)
    assert exact.loss(noisy, clean) == pytest.approx(wanted, rel=1e-6)


def test_bf16_is_refused_where_it_would_be_emulated(monkeypatch: pytest.MonkeyPatch) -> None:
    cpu = torch.device("cpu")
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: False)
    with pytest.raises(DeviceError, match="--precision bf16 needs an NVIDIA GPU"):
        choose_precision("bf16", model_spec("unet"), cpu)
    assert choose_precision("auto", model_spec("unet"), cpu) == "float32"


def test_a_processor_with_amx_trains_the_tried_networks_in_bf16(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: True)
    found = {name: choose_precision("auto", model_spec(name), torch.device("cpu")) for name in ("cryo_cnn", "unet")}
    assert found == {"cryo_cnn": "float32", "unet": "bf16"}


def test_bands_in_bf16_give_rounded_gradients_of_float32_weights_whatever_the_threads() -> None:
    config = {"depth": 1, "width": 16, "stem": 2, "skip": "none"}
    spec = model_spec("unet").configured(config)
    module = spec.build(seed=1, config=config)
    torch.manual_seed(0)
    torch.nn.init.normal_(module.output.weight, std=0.1)  # type: ignore[arg-type, union-attr]  (a fresh one is 0)
    noisy, clean = torch.rand(2, 3, 1, 64, 48)
    found = []
    for threads, precision in ((1, "float32"), (1, "bf16"), (3, "bf16")):
        with open_engine(module, spec, device=torch.device("cpu"), threads=threads, precision=precision) as engine:
            loss, gradients = engine.loss_and_gradients(noisy, clean)
            assert engine.loss(noisy, clean) == pytest.approx(loss, rel=1e-3)
        assert all(gradient.dtype == torch.float32 for gradient in gradients)
        found.append((loss, torch.cat([gradient.flatten() for gradient in gradients])))
    exact, rounded, other = found
    assert rounded[0] == other[0] != exact[0]
    assert torch.equal(rounded[1], other[1])
    assert rounded[0] == pytest.approx(exact[0], rel=0.02)
    assert 0 < float((rounded[1] - exact[1]).norm() / exact[1].norm()) < 0.05


def test_bf16_is_chosen_for_the_networks_that_were_tried_with_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: (9, 0))
    gpu = torch.device("cuda", 0)
    found = {
        (asked, model): choose_precision(asked, model_spec(model), gpu)
        for asked in ("auto", "float32", "bf16")
        for model in ("cryo_cnn", "residual_cnn", "unet")
    }
    bf16 = {("auto", "residual_cnn"), ("auto", "unet"), *(key for key in found if key[0] == "bf16")}
    assert {key for key, value in found.items() if value == "bf16"} == bf16
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: (7, 5))
    assert choose_precision("auto", model_spec("unet"), gpu) == "float32"
