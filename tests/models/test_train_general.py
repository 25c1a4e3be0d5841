"""What the general model learns by: faint crops count, what is uncertain fades, and wide layers learn slowly."""

from __future__ import annotations

import copy
import importlib.util
import json
import math
from pathlib import Path
from types import ModuleType

import pytest
import torch
from safetensors.torch import load_file, save_file

from cryoplug.models.unet import UNet, build

EXAMPLE = Path(__file__).parents[2] / "examples" / "train_general"


def example(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, EXAMPLE / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


wake = example("dormant").wake


@pytest.fixture(scope="module")
def evenly() -> ModuleType:
    return example("evenly")


@pytest.fixture(scope="module")
def rates() -> ModuleType:
    return example("rates")


def learnt_amplitude(evenly: ModuleType, present: float) -> float:
    """Learn how strongly to show a pattern that is there in a part of the crops."""
    random = torch.Generator().manual_seed(0)
    pattern = 0.05 * torch.randn((64, 64), generator=random)
    amplitude = torch.nn.Parameter(torch.tensor(0.02))
    loss, optimizer = evenly.EvenLoss(1, torch.device("cpu")), torch.optim.Adam([amplitude], lr=0.004)
    late = []
    for step in range(1200):
        there = (torch.rand((8, 1, 1, 1), generator=random) < present).float()
        unpredictable = 0.02 * torch.randn((8, 1, 64, 64), generator=random)
        output = (amplitude * pattern).expand(8, 1, 64, 64)
        optimizer.zero_grad()
        loss(output.detach(), output - there * (pattern + unpredictable)).backward()
        optimizer.step()
        if step >= 900:
            late.append(float(amplitude.detach()))
    return sum(late) / len(late)


@pytest.mark.parametrize("present", [0.25, 0.5, 0.75])
def test_what_may_be_there_fades_and_is_not_erased(evenly: ModuleType, present: float) -> None:
    # The expected image has the amplitude `present`.
    assert 0.85 * present < learnt_amplitude(evenly, present) < 1.15 * present


def test_in_the_long_run_a_crop_of_each_strength_costs_the_same(evenly: ModuleType) -> None:
    random = torch.Generator().manual_seed(1)
    loss = evenly.EvenLoss(1, torch.device("cpu"))
    for strength in (0.003, 0.1, 3.0):
        costs = []
        for _ in range(300):
            output = strength * torch.randn((8, 1, 64, 64), generator=random)
            costs.append(float(loss(output, 0.6 * output.roll(1, 3))))
        assert sum(costs[200:]) / 100 == pytest.approx(1, abs=0.05)


def test_the_likeness_does_not_depend_on_the_strength_of_the_output(evenly: ModuleType) -> None:
    random = torch.Generator().manual_seed(2)
    truth = 0.2 * torch.randn((4, 64, 64), generator=random)
    output = truth + 0.3 * torch.randn((4, 64, 64), generator=random)
    strong, faint = (float(evenly.unlikeness(part * output, truth, block_px=64)) for part in (1.0, 0.1))
    assert faint == pytest.approx(strong, rel=0.02)
    correlations = [
        torch.corrcoef(torch.stack((a.flatten(), b.flatten())))[0, 1] for a, b in zip(output, truth, strict=True)
    ]
    assert strong == pytest.approx(float(torch.stack(correlations).square().neg().log1p().mean()), rel=0.01)


def test_a_field_that_fades_evenly_is_more_alike_than_one_that_is_half_erased(evenly: ModuleType) -> None:
    random = torch.Generator().manual_seed(3)
    truth = 0.1 * torch.randn((2, 64, 64), generator=random)
    seen = truth + 0.2 * torch.randn((2, 64, 64), generator=random)
    half = seen.clone()
    half[:, :32] *= 0.05
    even, patchy = (float(evenly.unlikeness(0.2 * image, truth, block_px=64)) for image in (seen, half))
    assert even < 1.5 * patchy < 0


def test_an_empty_crop_and_the_slope_of_the_ice_say_nothing_of_likeness(evenly: ModuleType) -> None:
    random = torch.Generator().manual_seed(4)
    truth = 0.1 * torch.randn((2, 64, 64), generator=random)
    output = (truth + 0.1 * torch.randn((2, 64, 64), generator=random)).requires_grad_()
    truth[1] = 0
    alike = evenly.unlikeness(output, truth, block_px=16)
    (gradient,) = torch.autograd.grad(alike, output)
    assert float(gradient[0].abs().max()) > 0 and float(gradient[1].abs().max()) == 0
    steps = torch.kron(torch.arange(4.0), torch.ones(16)).expand(2, 64, 64)
    assert float(evenly.unlikeness(output.detach() + steps, truth, block_px=16)) == pytest.approx(
        float(alike.detach()), rel=1e-3
    )


def test_the_losses_of_processes_average_to_that_of_the_whole_batch(evenly: ModuleType) -> None:
    random = torch.Generator().manual_seed(5)
    truth = 0.1 * torch.randn((6, 64, 64), generator=random)
    output = truth + 0.1 * torch.randn((6, 64, 64), generator=random)
    truth[1:3] = 0  # two of the first three are empty, none of the others
    whole = evenly.unlikeness(output, truth, block_px=16)
    parts = [
        evenly.unlikeness(output[rows], truth[rows], block_px=16, average=lambda count: torch.full_like(count, 2.0))
        for rows in (slice(0, 3), slice(3, 6))
    ]
    assert float(sum(parts) / 2) == pytest.approx(float(whole), rel=1e-5)
    assert float(evenly.unlikeness(output[1:3], truth[1:3], block_px=16)) == 0


def network() -> UNet:
    return build(seed=1, depth=3, width=8, stem=2, skip="none", outputs=2, clip=8.0, most=64)


def test_each_layer_learns_at_its_part_of_the_rate_and_none_is_left_out(rates: ModuleType) -> None:
    module = network()
    part_of = {
        id(parameter): part
        for part, parameters in rates.parts_of_the_rate(module, power=1.0).items()
        for parameter in parameters
    }
    assert {id(parameter) for parameter in module.parameters()} == set(part_of)
    # Four pixels enter, then 8 channels at the finest level; up2 reads 32 channels and 64 from below.
    for layer, part in (
        (module.down0.conv1, 1),
        (module.output, 1),
        (module.up2.conv1, 8 / 96),
        (module.middle.conv2, 1 / 8),
    ):
        assert part_of[id(layer.weight)] == part_of[id(layer.bias)] == pytest.approx(part)
    (part,) = rates.parts_of_the_rate(module, power=0.0)
    assert part == 1
    assert min(rates.parts_of_the_rate(module, power=0.5)) == pytest.approx(math.sqrt(8 / 96))


def asleep_after(power: float, rates: ModuleType) -> int:
    """Teach a small network to blur noise for some steps at a usual rate; count the channels that fall asleep."""
    random = torch.Generator().manual_seed(6)
    module = network()
    groups = [
        {"params": parameters, "lr": 0.002 * part}
        for part, parameters in rates.parts_of_the_rate(module, power=power).items()
    ]
    optimizer = torch.optim.AdamW(groups)
    for _ in range(30):
        seen = torch.randn((2, 1, 64, 64), generator=random)
        truth = torch.nn.functional.avg_pool2d(seen, 9, stride=1, padding=4) * 3
        optimizer.zero_grad()
        (module(seen) - truth).square().mean().backward()
        optimizer.step()
    return wake(copy.deepcopy(module), torch.randn((4, 1, 64, 64), generator=random), seed=0)


def test_fewer_channels_fall_asleep_where_wide_layers_learn_slowly(rates: ModuleType) -> None:
    assert asleep_after(1.0, rates) < 0.25 * asleep_after(0.0, rates)


def test_the_mean_of_two_checkpoints_has_the_mean_of_each_weight(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights = [{"a": torch.tensor([value, 2 * value]).half()} for value in (1.0, 3.0)]
    for number, one in enumerate(weights):
        folder = tmp_path / str(number)
        folder.mkdir()
        save_file(one, folder / "model.safetensors")
        (folder / "checkpoint.json").write_text(json.dumps({"model": "unet", "training": {"seed": number}}))
    folders = [str(tmp_path / name) for name in ("0", "1", "mean")]
    monkeypatch.setattr("sys.argv", ["mean.py", *folders[:2], "-o", folders[2]])
    example("mean").main()
    assert load_file(tmp_path / "mean" / "model.safetensors")["a"].tolist() == [2.0, 4.0]
    record = json.loads((tmp_path / "mean" / "checkpoint.json").read_text())
    assert record["training"] == {"seed": 1, "mean_with": [folders[0]]}
