from __future__ import annotations

import copy
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from cryoplug.errors import DeviceError, UsageError
from cryoplug.inference.denoiser import Denoiser
from cryoplug.inference.network.precision import choose_precision
from cryoplug.models.checkpoint import Checkpoint
from cryoplug.models.registry import ModelSpec, model_spec

CPU, GPU = torch.device("cpu"), torch.device("cuda", 0)


@pytest.fixture
def card(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    card = SimpleNamespace(capability=(9, 0))
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: card.capability)
    return card


def choose(
    asked: str, model: str = "unet", device: torch.device = GPU, normalize: str = "zscore", **config: object
) -> str:
    return choose_precision(asked, model_spec(model).configured(config), device, normalize=normalize)


@pytest.mark.parametrize("model", ["cryo_cnn", "residual_cnn", "unet"])
def test_auto_takes_float16_on_a_card_that_has_units_for_it(card, model):
    assert choose("auto", model) == "float16"
    assert choose("auto", model, CPU) == "float32"
    card.capability = (6, 1)
    assert choose("auto", model) == "float32"


def test_auto_keeps_float32_where_float16_was_not_compared_or_would_lose_contrast(card):
    assert choose("auto", normalize="none") == "float32"
    assert choose("auto", norm="group") == "float32"
    other = ModelSpec("other", "a plugin's", "nowhere:build", receptive_field_px=1)
    assert choose_precision("auto", other, GPU, normalize="zscore") == "float32"
    assert choose_precision("float16", other, GPU, normalize="none") == "float16", "who asks gets it"


def test_what_a_device_cannot_is_refused(card):
    with pytest.raises(UsageError, match="--precision bf16 is for GPUs; on cpu use auto or float32"):
        choose("bf16", device=CPU)
    card.capability = (7, 5)
    assert choose("float16") == "float16"
    with pytest.raises(DeviceError, match="no units for bf16; use --precision auto"):
        choose("bf16")
    with pytest.raises(UsageError, match="precision 'half'"):
        choose("half")


@pytest.mark.parametrize("config", [{}, {"stem": 2}, {"stem": 2, "skip": "none"}])
@pytest.mark.parametrize("shape", [(16, 16), (64, 72), (35, 81)])
def test_a_unet_with_half_weights_is_the_unet_to_their_rounding(shape, config):
    network = model_spec("unet").build(seed=4, config=config)
    network.output.weight.data.normal_(0, 0.03, generator=torch.Generator().manual_seed(1))
    image = torch.from_numpy(np.random.default_rng(1).normal(size=(1, 1, *shape)).astype(np.float32))
    with torch.inference_mode():
        wanted = network(image)
        rounded = copy.deepcopy(network).to(torch.bfloat16)(image)
    assert 0 < (rounded - wanted).abs().max() <= 1e-2 * np.ptp(wanted.numpy())
    # What is added to float32 keeps the image's own digits.
    assert rounded.dtype == (torch.float32 if network.adds_input else torch.bfloat16)


def test_what_half_precision_cannot_hold_is_computed_in_float32():
    weights = {name: tensor.numpy() for name, tensor in model_spec("cryo_cnn").build(seed=1).state_dict().items()}
    network = Denoiser(Checkpoint("cryo_cnn", weights), device="cpu", threads=1).network
    network._half = torch.bfloat16
    calm, wild = torch.zeros(1, 1, 40, 40), torch.zeros(1, 1, 40, 40)
    wild[0, 0, 3, 3] = 3e38
    with torch.inference_mode():
        assert network(calm).dtype == torch.float32
        found = []
        network._in_half = lambda pixels: torch.full_like(pixels, torch.inf if pixels.max() > 1 else 7.0)
        found = [network(calm), network(wild)]
        assert (found[0] == 7).all() and torch.equal(found[1], network.module(wild))
