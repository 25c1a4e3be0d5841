"""Pages of evaluations, training runs, stores and inspections: what they say, and that names stay text."""

from __future__ import annotations

import importlib.util
import math
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from cryoplug.metrics.response import FrequencyResponse
from cryoplug.reports.big_table import common_folder
from cryoplug.reports.evaluation import METHODS
from cryoplug.reports.evaluation_columns import HALVES_COLUMNS, HINTS, TRUTH_COLUMNS
from cryoplug.reports.grey_panels import panels
from cryoplug.reports.store_page import MOST_PICTURES, StoreEntry, choose_pictures, outliers
from cryoplug.reports.training_page import training_page

_spec = importlib.util.spec_from_file_location("made_pages", Path(__file__).with_name("made_pages.py"))
assert _spec and _spec.loader
made = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(made)
PAGES = made.made_pages()
FOLDER, NAME = made.FOLDER, made.NAME


class Text(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.parts: list[str] = []
        self.tags: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)

    def handle_data(self, data: str) -> None:
        self.parts.append(data)


def parsed(page: str) -> tuple[str, list[str]]:
    reader = Text()
    reader.feed(re.sub(r"<(script|style).*?</\1>", "", page, flags=re.DOTALL))
    return " ".join(" ".join(reader.parts).split()), reader.tags


@pytest.mark.parametrize("kind", sorted(PAGES))
def test_a_hostile_name_is_text(kind: str) -> None:
    text, tags = parsed(PAGES[kind])
    assert "<b>\"x'.mrc" in text + re.sub(r"\\u003c", "<", PAGES[kind]).replace("\\u003e", ">").replace('\\"', '"')
    # The tiles have b elements of their own: without a class no b comes from the templates.
    assert PAGES[kind].count("<b>\"x'") == 0
    assert tags.count("script") == 0


def test_an_evaluation_says_verdict_baselines_and_every_column() -> None:
    text, _ = parsed(PAGES["evaluation"])
    assert "than the raw micrograph" in text
    assert all(method in text for method in METHODS)
    assert all(HINTS[name] in text for name, _, _ in (*TRUTH_COLUMNS, *HALVES_COLUMNS))
    assert all(caption in text for caption in ("raw", "denoised", "truth", "denoised noise"))
    assert PAGES["evaluation"].count("<svg") == 3
    assert PAGES["evaluation"].count("data:image/jpeg") == 10


def test_a_training_run_says_losses_verdict_pairs_and_response() -> None:
    text, _ = parsed(PAGES["training"])
    for part in ("Loss", "validation", "the other half", "removed (input - denoised)", "Effective frequency response"):
        assert part in text
    assert PAGES["training"].count("<svg") == 4


@pytest.mark.parametrize(
    "record",
    [None, 3, {}, {"curves": 5}, {"truth": [1]}, {"micrographs": 1, "patches": None, "truth": {"denoised": {}}}],
)
def test_a_record_of_something_else_costs_its_sections_alone(record: object) -> None:
    page = training_page(
        Path("run"), [{"epoch": 1, "train_loss": math.nan}], {"evaluation": record}, ["words"], about=[]
    )
    assert "words" in page
    assert "Beside simple filters" not in page


def test_outliers_of_mean_and_sigma_are_named_and_others_are_not() -> None:
    entries = [StoreEntry(str(i), "train", 1, 10 + 0.01 * (i % 7), 2 + 0.01 * (i % 5)) for i in range(60)]
    assert not any(outliers(entries))
    entries[7] = StoreEntry("7", "train", 1, 30.0, 2.0)
    entries[9] = StoreEntry("9", "train", 1, 10.0, 7.0)
    found = outliers(entries)
    assert (found[7], found[9], sum(map(bool, found))) == ("mean", "sigma", 2)
    assert {7, 9} <= set(choose_pictures(entries))
    assert len(choose_pictures(entries)) <= MOST_PICTURES
    assert choose_pictures(entries[:3]) == [0, 1, 2]
    assert outliers([]) == []
    assert not any(outliers([StoreEntry(str(i), "train", 1, math.nan, math.nan) for i in range(9)]))


def test_an_inspection_spells_out_errors_and_shows_the_store() -> None:
    text, _ = parsed(PAGES["inspection"])
    assert "1 of them has an error or a warning" in text
    assert "mode: 3 in" in text
    assert "1 micrograph stands out" in text
    assert PAGES["inspection"].count("data:image/jpeg") == 31


def test_panels_have_one_span_of_grey() -> None:
    rng = np.random.default_rng(0)
    images = {"a": rng.normal(5, 1, (64, 64)), "b": rng.normal(-3, 1, (64, 64)), "flat": np.full((64, 64), 2.0)}
    drawn = panels({name: image.astype(np.float32) for name, image in images.items()}, clean=["a"], noisy=["b"])
    import io

    from PIL import Image

    spreads = [np.array(Image.open(io.BytesIO(payload))).std() for payload, _ in drawn.pictures]
    assert spreads[0] == pytest.approx(spreads[1], rel=0.1)
    assert spreads[2] == 0


@pytest.mark.parametrize("gain", [0.0, 0.3, 1.0])
def test_the_response_of_a_filter_is_its_gain(gain: float) -> None:
    response = FrequencyResponse()
    rng = np.random.default_rng(1)
    for _ in range(2):
        image = rng.normal(3, 1, (48, 64)).astype(np.float32)
        response.add(image, np.float32(gain) * image + np.float32(7))
    frequency, found = response.curve()
    np.testing.assert_allclose(found, gain, atol=1e-5)
    assert 0 < frequency[0] < frequency[-1] <= 0.5 + 1e-9
    assert all(len(part) == 0 for part in FrequencyResponse().curve())


def test_what_is_wrong_is_said_file_by_file_below_a_folder_that_is_said_once() -> None:
    text, _ = parsed(PAGES["nested"])
    assert text.count(f"All are in {FOLDER}.") == 1
    spelled = text.partition("What is wrong")[2].partition("Everything that was looked at")[0]
    assert f"grid2/{NAME}" in spelled and f"{FOLDER}grid2" not in spelled and spelled.count("warning") == 2


@pytest.mark.parametrize(
    ("names", "folder"),
    [
        (["a/b/c.mrc", "a/b/d.mrc"], "a/b/"),
        (["a/b.mrc", "a/b.mrc"], "a/"),
        (["a.mrc", "b.mrc"], ""),
        (["/data/x/a.mrc", "/data/xy/a.mrc"], "/data/"),
        (["/a.mrc", "b.mrc"], ""),
        (["a/b.mrc"], ""),
        ([], ""),
    ],
)
def test_a_common_folder_ends_with_a_whole_name(names: list[str], folder: str) -> None:
    assert common_folder(names) == folder
