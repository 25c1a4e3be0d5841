"""``cryoplug.simulate``, ``cryoplug.evaluate`` and ``cryoplug.open_store``; and the examples of all verbs."""

from __future__ import annotations

import doctest
import importlib
import json
from pathlib import Path

import numpy as np
import pytest

import cryoplug
from cryoplug.cli.main import run
from cryoplug.errors import InputError, MissingInputError, UsageError

pytestmark = pytest.mark.usefixtures("here", "no_pictures")


def test_simulate_makes_what_the_command_makes_and_each_skips_what_the_other_made() -> None:
    made = cryoplug.simulate("sim", count=1, size=64, pixel_size=3, dose=40, defocus=(1, 2))
    assert made.outputs == (Path("sim/noisy/mic_0001.mrc"),) and all(path.is_file() for path in made.lists)
    assert [path.name for path in made.lists] == ["micrographs.star", "coordinates.star"]
    words = ["simulate", "-o", "sim", "--count", "1", "--size", "64", "--pixel-size", "3", "--defocus", "1", "2"]
    assert run(words) == 0, "3 and 3.0 are one setting"
    again = cryoplug.simulate("sim", count=1, size=64, pixel_size=3.0, defocus=(1.0, 2.0))
    assert [item.status for item in again.files] == ["skipped"] and again.remarks == ()
    with pytest.raises(UsageError, match="not from these settings and this simulator"):
        cryoplug.simulate("sim", count=1, size=64)
    with pytest.raises(UsageError, match=r"--size 3 \(allowed: 64 to 8192\); --dose 0"):
        cryoplug.simulate("sim", size=3, dose=0)
    with pytest.raises(InputError, match=r"no_such\.map"):
        cryoplug.simulate("sim", map="no_such.map", map_threshold=1.5)


def test_evaluate_says_in_words_and_numbers_what_the_command_says() -> None:
    cryoplug.simulate("sim", count=2, size=128, pixel_size=5)
    seen: list[str] = []
    what = {"inputs": "sim/noisy/*.mrc", "clean": "sim/clean/*.mrc"}
    judged = cryoplug.evaluate(
        **what, output="out", require_better_than="gaussian", progress=lambda result: seen.append(result.status)
    )
    record = json.loads(Path("out/evaluation.json").read_text(encoding="utf-8"))
    assert list(judged.words) == record["words"] and str(judged).startswith(judged.words[0])
    assert judged.summary is not None and judged.summary.micrographs == 2 and seen == ["done", "done"]
    assert judged.outputs[0] == Path("out/evaluation.json") and judged.page == Path("out/report.html")
    assert judged.table in Path("out/evaluation.txt").read_text(encoding="utf-8")
    assert judged.met is False and judged.exit_code == 1, "random weights are no denoiser: an answer, no error"
    assert cryoplug.evaluate(**what, output="out", overwrite=True).met is None
    with pytest.raises(UsageError, match="--overwrite"):
        cryoplug.evaluate(**what, output="out")
    Path("sim/noisy/mic_0002.mrc").write_bytes(b"no micrograph")
    some = cryoplug.evaluate(**what, output="some", require_better_than="gaussian")
    assert [item.status for item in some.files] == ["done", "failed"] and (some.met, some.exit_code) == (False, 1)
    with pytest.raises(InputError, match=r"mic_0002\.mrc"):
        cryoplug.evaluate("sim/noisy/mic_0002.mrc", "other", clean="sim/clean/mic_0002.mrc")


def test_a_store_gives_its_pairs_as_arrays() -> None:
    cryoplug.simulate("sim", count=2, size=128, pixel_size=5)
    assert run(["convert", "--pairs", "halves", "--even", "sim/even", "--odd", "sim/odd", "-o", "data"]) == 0
    with cryoplug.open_store("data") as store:
        noisy, clean = store.pair(0)
        assert noisy.shape == clean.shape == store.patch_shape and noisy.dtype == clean.dtype == np.float32
        batch = np.empty((2, 1, *store.patch_shape), np.float32)
        store.read([0], batch[0], batch[1])
        assert np.array_equal(batch[:, 0], (noisy, clean)) and not np.array_equal(noisy, clean)
        with pytest.raises(IndexError, match="allowed: 0 to"):
            store.pair(store.count())
    with pytest.raises(MissingInputError, match="cryoplug convert"):
        cryoplug.open_store("nothing")


@pytest.mark.parametrize("home", ["verbs.denoise", "verbs.evaluate", "verbs.simulate", "store.pairs"])
def test_the_examples_of_the_docstrings_run(home: str) -> None:
    found = doctest.testmod(importlib.import_module(f"cryoplug.{home}"))
    assert found.attempted > 2 and found.failed == 0
