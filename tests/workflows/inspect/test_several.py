"""Several images are looked at at once, and nobody sees it in what is said."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import numpy as np
import pytest

from cryoplug.formats.mrc import write_mrc
from cryoplug.workflows.inspect import InspectRequest, inspect
from cryoplug.workflows.inspect import several as several_module
from cryoplug.workflows.inspect.inspection import Inspection
from cryoplug.workflows.inspect.several import several_at_once


def look_slowly_first(path: Path) -> Inspection:
    time.sleep(0.05 if path.name == "0" else 0.0)
    return Inspection(path, "micrograph", {}, ())


@pytest.fixture(autouse=True)
def three_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(several_module.os, "sched_getaffinity", lambda process: {0, 1, 2})


def test_what_is_found_comes_in_the_order_of_the_paths() -> None:
    taken: list[str] = []
    with several_at_once(look_slowly_first, lambda item: taken.append(item.path.name)) as several:
        for number in range(9):
            several.image(Path(str(number)))
            several.then(lambda number=number: taken.append(f"after {number}"))  # type: ignore[misc]
            if number % 4 == 2:
                several.other(Path(f"other {number}"))
    expected = [[str(number), f"after {number}", *([f"other {number}"] * (number % 4 == 2))] for number in range(9)]
    assert taken == [text for texts in expected for text in texts]


def test_images_are_looked_at_side_by_side() -> None:
    meet = threading.Barrier(3, timeout=20)

    def look(path: Path) -> Inspection:
        meet.wait()
        return Inspection(path, "micrograph", {}, ())

    with several_at_once(look, lambda item: None) as several:
        for number in range(6):
            several.image(Path(str(number)))


def test_after_an_error_no_further_image_is_begun() -> None:
    begun: list[Path] = []

    def look(path: Path) -> Inspection:
        begun.append(path)
        return Inspection(path, "micrograph", {}, ())

    def take(item: Inspection) -> None:
        raise BrokenPipeError

    with pytest.raises(BrokenPipeError), several_at_once(look, take) as several:
        for number in range(100):
            several.image(Path(str(number)))
    assert len(begun) <= 4


def test_a_folder_of_many_images_is_told_in_order(tmp_path: Path) -> None:
    names = [f"m{number:02d}.mrc" for number in range(12)]
    for number, name in enumerate(names):
        side = 40 if number % 3 else 400
        pixels = np.random.default_rng(number).normal(20, 3, (side, side)).astype(np.float32)
        write_mrc(tmp_path / name, pixels, pixel_size_angstrom=1.1)
    found = inspect(InspectRequest((tmp_path,))).inspections
    assert [item.path.name for item in found] == names
    assert [item.summary["shape"][0] for item in found] == [40 if number % 3 else 400 for number in range(12)]
