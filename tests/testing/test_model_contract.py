"""Each law of a network catches one that breaks it."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional

from cryoplug import extensions
from cryoplug.models.registry import ModelSpec
from cryoplug.testing import ModelContract

IN_A_PROCESS_OF_ITS_OWN = "test_its_numbers_are_told_without_torch"


class Net(nn.Module):
    """A network without a fault: two 3x3 convolutions."""

    def __init__(self, middle: int = 4) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, middle, 3, padding=1)
        self.conv2 = nn.Conv2d(middle, 1, 3, padding=1)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.conv2(functional.relu(self.conv1(images)))


def seeded(kind: Callable[..., nn.Module], **options: Any) -> Callable[..., nn.Module]:
    def build(*, seed: int = 0) -> nn.Module:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return kind(**options)

    return build


GOOD = ModelSpec("toy", "two convolutions", seeded(Net), 2, layers=(("conv1", 4, 1), ("conv2", 1, 4)))


class Reflects(Net):
    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return super().forward(functional.pad(images, (1, 1, 1, 1), mode="reflect"))[..., 1:-1, 1:-1]


class MixesTheBatch(Net):
    def forward(self, images: torch.Tensor) -> torch.Tensor:
        result = super().forward(images)
        return result + 0.1 * result.mean(dim=0) if len(images) > 1 else result


class ChangesItsImage(Net):
    def forward(self, images: torch.Tensor) -> torch.Tensor:
        result = super().forward(images)
        if not images.requires_grad:
            images.zero_()
        return result


class CountsSteps(Net):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))


class HasAnIdleLayer(Net):
    def __init__(self) -> None:
        super().__init__()
        self.idle = nn.Conv2d(1, 1, 3)


class Pools(Net):
    """Looks 5 pixels far, on a grid of 2."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        height, width = images.shape[-2:]
        images = functional.pad(images, (0, width % 2, 0, height % 2), mode="replicate")
        return functional.interpolate(super().forward(functional.avg_pool2d(images, 2)), scale_factor=2)[
            ..., :height, :width
        ]


class LooksEverywhere(Net):
    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return super().forward(images) + images.mean(dim=(1, 2, 3), keepdim=True)


instances = itertools.count(1)


class HoldsSomethingElse(Net):
    def __init__(self) -> None:
        super().__init__()
        self.factor = float(next(instances))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.factor * super().forward(images)


class DependsOnThePlace(Net):
    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return super().forward(images) + torch.linspace(0, 1, images.shape[-1])


class Deep(nn.Sequential):
    def __init__(self) -> None:
        super().__init__(*(nn.Conv2d(1, 1, 3, padding=1) for _ in range(50)))


def draws_globally(*, seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return Net()


def ignores_the_seed(*, seed: int = 0) -> nn.Module:
    return seeded(Net)(seed=0)


def takes_any_option(*, seed: int = 0, **options: Any) -> nn.Module:
    return seeded(Net)(seed=seed)


def spec(factory: Callable[..., nn.Module], radius: int = 2, **fields: Any) -> ModelSpec:
    return ModelSpec("toy", "a toy", factory, radius, **fields)


SEED = "test_it_is_a_function_of_its_seed"
WEIGHTS = "test_its_weights_are_those_of_the_spec"
BEYOND, WITHIN = "test_no_pixel_beyond_the_receptive_field_matters", "test_pixels_within_the_receptive_field_matter"
MOVED = "test_moving_the_image_by_the_size_multiple_moves_the_result"
TILES, CHECKPOINT = "test_tiles_equal_the_whole_image", "test_a_checkpoint_gives_the_network_back"
BATCH = "test_images_of_a_batch_do_not_mix"
DOUBLES = {
    "text of two lines": (dataclasses.replace(GOOD, description="a\nb"), {"test_the_registry_finds_it"}),
    "takes any option": (spec(takes_any_option), {"test_options_that_it_does_not_have_are_refused"}),
    "reflects": (spec(seeded(Reflects)), {"test_an_image_keeps_its_shape_whatever_it_is"}),
    "mixes the batch": (spec(seeded(MixesTheBatch)), {BATCH}),
    "changes its image": (
        spec(seeded(ChangesItsImage)),
        {BATCH, CHECKPOINT, MOVED, "test_gradients_reach_every_weight"},
    ),
    "draws globally": (spec(draws_globally), {SEED}),
    "ignores the seed": (spec(ignores_the_seed), {SEED}),
    "counts steps": (spec(seeded(CountsSteps)), {WEIGHTS}),
    "other shapes": (spec(seeded(Net), layers=(("conv1", 8, 1), ("conv2", 1, 8))), {WEIGHTS, CHECKPOINT}),
    "idle layer": (spec(seeded(HasAnIdleLayer)), {"test_gradients_reach_every_weight"}),
    "looks farther": (spec(seeded(Net), 1), {BEYOND, TILES}),
    "looks nearer": (spec(seeded(Net), 3), {WITHIN}),
    "pools on a finer grid": (spec(seeded(Pools), 5), {MOVED, TILES}),
    "looks everywhere": (spec(seeded(LooksEverywhere)), {BEYOND, MOVED, TILES}),
    "does not look everywhere": (spec(seeded(Net), uses_whole_image=True), {BEYOND}),
    "holds something else": (spec(seeded(HoldsSomethingElse)), {CHECKPOINT, TILES}),
    "depends on the place": (spec(seeded(DependsOnThePlace)), {MOVED, TILES}),
}


def contract(tested: ModelSpec) -> type[ModelContract]:
    class Contract(ModelContract):
        spec = tested

    return Contract


@pytest.fixture
def install(monkeypatch: pytest.MonkeyPatch) -> Callable[[ModelSpec], None]:
    return lambda spec: monkeypatch.setattr(extensions, "load_all", lambda group, **_: {spec.id: spec})


@pytest.mark.parametrize(
    "good",
    [GOOD, spec(seeded(Pools), 5, size_multiple=2), spec(seeded(LooksEverywhere), uses_whole_image=True)],
    ids=["plain", "pools", "everywhere"],
)
def test_a_network_without_a_fault_keeps_all_laws(install, broken_laws, good: ModelSpec) -> None:
    install(good)
    assert broken_laws(contract(good), skip=(IN_A_PROCESS_OF_ITS_OWN,)) == set()


@pytest.mark.parametrize(("radius", "broken"), [(50, set()), (49, {BEYOND}), (51, {WITHIN})])
def test_the_receptive_field_of_a_deep_network_is_measured_to_the_pixel(
    broken_laws, radius: int, broken: set[str]
) -> None:
    tested = contract(spec(seeded(Deep), radius))
    others = {name for name in dir(tested) if name.startswith("test_")} - {BEYOND, WITHIN}
    assert broken_laws(tested, skip=tuple(others)) == broken


@pytest.mark.parametrize("name", DOUBLES)
def test_a_network_with_a_fault_breaks_its_law_and_no_other(install, broken_laws, name: str) -> None:
    double, expected = DOUBLES[name]
    install(double)
    assert broken_laws(contract(double), skip=(IN_A_PROCESS_OF_ITS_OWN,)) == expected


@pytest.mark.parametrize(("first_line", "holds"), [("", True), ("import torch", False)])
def test_a_spec_that_imports_torch_breaks_its_law(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, first_line: str, holds: bool
) -> None:
    (tmp_path / "toy_model.py").write_text(
        f"{first_line}\nfrom cryoplug.models.registry import ModelSpec\nTOY = ModelSpec('toy', 'a toy', 'nowhere:f', 1)\n"
    )
    (tmp_path / "toy-1.dist-info").mkdir()
    (tmp_path / "toy-1.dist-info" / "entry_points.txt").write_text("[cryoplug.models]\ntoy = toy_model:TOY\n")
    root = Path(__file__).resolve().parents[2]
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}:{root}")
    monkeypatch.delenv(extensions.OFF_VARIABLE, raising=False)
    law = getattr(contract(GOOD)(), IN_A_PROCESS_OF_ITS_OWN)
    if holds:
        law()
    else:
        with pytest.raises(AssertionError, match="it imports torch"):
            law()


def test_every_law_has_a_double_that_breaks_it(laws) -> None:
    broken = set.union(*(expected for _, expected in DOUBLES.values()))
    assert broken | {IN_A_PROCESS_OF_ITS_OWN} == laws(ModelContract)
