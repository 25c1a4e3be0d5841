from __future__ import annotations

import dataclasses

import pytest

from cryoplug.errors import UsageError
from cryoplug.training.config import TrainConfig, differing_fields, parse_model_options


def test_defaults_are_those_of_the_founding_program() -> None:
    config = TrainConfig()
    assert (config.model, config.epochs, config.lr, config.batch_size) == ("cryo_cnn", 5, 0.001, 8)
    assert (config.val_split, config.patch_size, config.max_batches) == (0.1, 1024, None)


def test_all_problems_are_told_at_once() -> None:
    with pytest.raises(UsageError) as raised:
        TrainConfig(epochs=0, lr=float("nan"), batch_size=0, val_split=1.0, augment="flip", threads=-1, seed=-1)
    for part in (
        "--epochs 0 (allowed: 1 or more)",
        "--lr nan",
        "--batch-size 0",
        "--val-split 1.0 (allowed: 0 to below 1)",
        "--augment 'flip' (allowed: none, dihedral, halves)",
        "--threads -1 (allowed: 0 for all cores",
        "--seed -1",
    ):
        assert part in str(raised.value)


def test_how_a_run_is_carried_out_is_no_part_of_what_it_is() -> None:
    here, there = TrainConfig(), TrainConfig(device="cpu", threads=3, checkpoint_minutes=0)
    assert here.identity() == there.identity()
    for field in ("model", "epochs", "lr", "batch_size", "val_split", "max_batches", "seed", "shuffle", "augment"):
        assert field in here.identity()


def test_threads_default_to_those_the_process_may_use() -> None:
    assert TrainConfig().thread_count >= 1
    assert dataclasses.replace(TrainConfig(), threads=3).thread_count == 3


def test_differing_fields_are_named_with_both_values() -> None:
    assert differing_fields({"lr": 0.1, "seed": 1}, {"lr": 0.2, "seed": 1}) == ["lr was 0.1, is 0.2"]
    options = {"depth": 3, "width": 32, "stem": 2, "skip": "none"}
    texts = differing_fields({"model_options": options}, {"model_options": {**options, "clip": 8}})
    assert texts == ["model_options clip was None, is 8"]
    assert differing_fields({"model_options": {}}, {"model_options": {}}) == []


def test_model_options_become_numbers_where_they_look_like_them() -> None:
    assert parse_model_options(["depth=4", "rate=0.5", "norm=group", "name=nan"]) == {
        "depth": 4,
        "rate": 0.5,
        "norm": "group",
        "name": "nan",
    }
    for texts in (["depth"], ["=4"], ["depth="], ["depth=4", "depth=5"]):
        with pytest.raises(UsageError, match="--model-option"):
            parse_model_options(texts)


def test_what_an_older_version_did_not_ask_for_had_its_default() -> None:
    older = TrainConfig(lr=0.5).identity()
    del older["model_options"]
    assert TrainConfig.completed(older) == TrainConfig(lr=0.5).identity()
