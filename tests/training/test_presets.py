from __future__ import annotations

import pytest

from cryoplug.errors import UsageError
from cryoplug.training.config import TrainConfig
from cryoplug.training.presets import with_recipe


def chosen(
    config: TrainConfig,
    recipe: str = "auto",
    pairs: str | None = "halves",
    given: frozenset[str] = frozenset(),
    whole: tuple[int, int] | None = None,
    on_gpu: bool = True,
    goes_on: bool = False,
) -> TrainConfig:
    return with_recipe(
        config,
        recipe,
        pairs=pairs,
        patch_shape=(512, 512),
        whole=whole,
        on_gpu=on_gpu,
        given=given,
        goes_on=goes_on,
    )


@pytest.mark.parametrize("pairs", [None, "noise", "clean", "halves", "single"])
def test_trained_weights_are_moved_at_a_tenth_of_the_usual_rate_and_come_to_rest(pairs: str | None) -> None:
    config = chosen(TrainConfig(), pairs=pairs, goes_on=True, on_gpu=False)
    assert config.lr == pytest.approx(0.1 * TrainConfig().lr) and config.schedule == "cosine"
    assert 0 < config.warmup_steps < 200
    assert config.augment == {"halves": "halves", "single": "dihedral"}.get(pairs or "", "none")
    asked = TrainConfig(lr=0.01, schedule="constant")
    kept = chosen(asked, pairs=pairs, goes_on=True, given=frozenset({"lr", "schedule"}))
    assert (kept.lr, kept.schedule) == (0.01, "constant")


@pytest.mark.parametrize("pairs", ["noise", "clean", "halves", "single"])
def test_a_trained_unet_moves_faster_and_decays_less(pairs: str) -> None:
    mixed = pairs in ("halves", "single")
    for on_gpu in (True, False):
        config = chosen(TrainConfig(model="unet"), pairs=pairs, goes_on=True, on_gpu=on_gpu)
        assert config.lr == (1e-3 if mixed else 1e-4)
        assert config.weight_decay == (0.01 if mixed else 0)
    asked = TrainConfig(model="unet", lr=2e-4, weight_decay=0.5)
    kept = chosen(asked, pairs=pairs, goes_on=True, on_gpu=True, given=frozenset({"lr", "weight_decay"}))
    assert (kept.lr, kept.weight_decay) == (2e-4, 0.5)


def test_the_founding_way_is_the_same_from_any_start() -> None:
    assert chosen(TrainConfig(), recipe="founding", goes_on=True) == TrainConfig()


@pytest.mark.parametrize("pairs", [None, "noise", "clean"])
def test_other_stores_than_of_halves_are_trained_the_founding_way(pairs: str | None) -> None:
    assert chosen(TrainConfig(), pairs=pairs) == TrainConfig()


def test_halves_get_mixtures_a_schedule_and_an_average() -> None:
    config = chosen(TrainConfig(model="unet"))
    assert (config.augment, config.mix, config.schedule, config.batch_size) == ("halves", 0.5, "cosine", 4)
    assert config.model_options["skip"] == "none" and config.weight_decay == 0.1
    config = chosen(TrainConfig())
    assert config.model_options == {}, "cryo_cnn has no options"
    assert config.weight_decay == 0.0, "nor enough weights to learn noise by heart"


def test_a_pair_counts_twice_where_it_gives_two_mixtures() -> None:
    assert chosen(TrainConfig(mix=1.0), given=frozenset({"mix"})).batch_size == 8
    assert chosen(TrainConfig(mix=0.9), given=frozenset({"mix"})).batch_size == 4
    assert chosen(TrainConfig(augment="dihedral"), given=frozenset({"augment"})).batch_size == 8


def test_what_the_user_gave_stays() -> None:
    asked = TrainConfig(model="unet", model_options={"depth": 2}, ema=None, batch_size=3)
    config = chosen(asked, given=frozenset({"ema", "batch_size"}))
    assert (config.ema, config.batch_size) == (None, 3)
    assert config.model_options == {"depth": 2, "width": 32, "stem": 2, "skip": "none"}
    assert chosen(asked, given=frozenset({"model_options"})).model_options == {"depth": 2}


def test_no_exchange_of_halves_means_no_mixtures() -> None:
    assert chosen(TrainConfig(augment="dihedral"), given=frozenset({"augment"})).mix == 1.0
    with pytest.raises(UsageError, match=r"--mix is 0.5, but --augment is dihedral"):
        chosen(TrainConfig(augment="dihedral", mix=0.5), given=frozenset({"augment", "mix"}))
    with pytest.raises(UsageError, match=r"--mix is 0.5, but --augment is none"):
        chosen(TrainConfig(mix=0.5), pairs="clean", given=frozenset({"mix"}))


def test_another_share_of_mixtures_needs_no_other_word() -> None:
    config = chosen(TrainConfig(mix=0.7), given=frozenset({"mix"}))
    assert (config.augment, config.mix) == ("halves", 0.7)


def test_a_cpu_takes_smaller_steps_and_a_narrower_unet() -> None:
    assert chosen(TrainConfig(), on_gpu=False).batch_size == 1
    config = chosen(TrainConfig(), whole=(2048, 1800), on_gpu=False)
    assert (config.batch_size, config.crops_per_epoch) == (2, 1000)
    widths = {
        on_gpu: chosen(TrainConfig(model="unet"), on_gpu=on_gpu).model_options["width"] for on_gpu in (True, False)
    }
    assert widths == {True: 32, False: 16}


def test_the_founding_recipe_can_be_asked_for() -> None:
    assert chosen(TrainConfig(), "founding") == TrainConfig()


def test_whole_micrographs_are_cut_small_and_an_epoch_is_worth_its_validation() -> None:
    config = chosen(TrainConfig(), whole=(2048, 1800))
    assert (config.crop_size, config.batch_size, config.crops_per_epoch) == (256, 16, 32000)
    config = chosen(TrainConfig(), whole=(2048, 200))
    assert config.crop_size == 200
    config = chosen(
        TrainConfig(crop_size=512, batch_size=4), whole=(2048, 1800), given=frozenset({"crop_size", "batch_size"})
    )
    assert (config.crop_size, config.batch_size, config.crops_per_epoch) == (512, 4, 8000)
