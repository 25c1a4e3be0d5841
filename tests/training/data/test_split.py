from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cryoplug.errors import FormatError, InputError, MissingInputError, UsageError
from cryoplug.training.data.split import read_indices, split_patches, write_indices


class FakeStore:
    """A store of patches without pixels: windows are (micrograph, y, x); None for bare bins."""

    def __init__(
        self, windows: list[tuple[int, int, int]] | None = None, *, count: int = 0, exposures: list[int] | None = None
    ) -> None:
        self.path = Path("store")
        self.patch_shape = (64, 64)
        micrographs = 1 + max((window[0] for window in windows or ()), default=-1)
        self.manifest = (
            None
            if windows is None
            else SimpleNamespace(
                windows={"train": windows},
                micrographs=[SimpleNamespace(shape=(256, 256))] * micrographs,
                exposures=np.arange(micrographs) if exposures is None else np.array(exposures),
            )
        )
        self._count = count if windows is None else len(windows)

    def count(self, split: str = "train") -> int:
        return self._count

    whole = False

    def window_of(self, index: int, split: str = "train") -> tuple[int, int, int] | None:
        return None if self.manifest is None else self.manifest.windows[split][index]

    def micrograph_of(self, index: int, split: str = "train") -> int | None:
        return None if self.manifest is None else self.manifest.windows[split][index][0]


def split(store: Any, fraction: float = 0.1, seed: int = 0, val_indices: Path | None = None) -> Any:
    return split_patches(store, fraction=fraction, seed=seed, val_indices=val_indices)


def grid(micrographs: int, *, side: int = 256, stride: int = 32) -> list[tuple[int, int, int]]:
    places = range(0, side - 63, stride)
    return [(micrograph, y, x) for micrograph in range(micrographs) for y in places for x in places]


@given(count=st.integers(1, 500), fraction=st.floats(0.01, 0.95))
def test_bare_bins_give_up_their_last_patches_as_the_plain_program_does(count: int, fraction: float) -> None:
    held = int(count * fraction)
    if held == 0:
        with pytest.raises(UsageError, match="holds out none; give --val-split"):
            split(FakeStore(count=count), fraction)
        return
    found = split(FakeStore(count=count), fraction)
    assert found.train.tolist() == list(range(count - held))
    assert found.validation.tolist() == list(range(count - held, count))


def test_the_advice_for_too_few_patches_works() -> None:
    with pytest.raises(UsageError, match=r"--val-split 0\.1 of 3 patches holds out none; give --val-split 0\.334 or"):
        split(FakeStore(count=3))
    assert len(split(FakeStore(count=3), 0.334).validation) == 1


@given(micrographs=st.integers(2, 30), fraction=st.floats(0.01, 0.95), seed=st.integers(0, 1000))
def test_a_micrograph_is_never_on_both_sides(micrographs: int, fraction: float, seed: int) -> None:
    windows = grid(micrographs, side=96)
    found = split(FakeStore(windows), fraction, seed)
    of = np.array([window[0] for window in windows])
    assert not set(of[found.train]) & set(of[found.validation])
    assert sorted([*found.train, *found.validation]) == list(range(len(windows)))
    assert len(set(of[found.validation])) == min(micrographs - 1, max(1, round(fraction * micrographs)))
    assert np.array_equal(found.validation, split(FakeStore(windows), fraction, seed).validation)


def test_another_seed_holds_out_another_micrograph() -> None:
    store = FakeStore(grid(20, side=64))
    assert len({tuple(split(store, 0.05, seed).validation) for seed in range(20)}) > 5


def test_one_micrograph_is_cut_so_that_no_patch_overlaps_the_other_side() -> None:
    windows = grid(1)
    found = split(FakeStore(windows))
    rows = np.array([window[1] for window in windows])
    assert rows[found.train].max() + 64 <= rows[found.validation].min()
    assert len(found.validation) >= int(0.1 * len(windows)) and "overlap both" in found.note


def test_one_micrograph_that_is_too_small_is_an_error_that_says_what_to_do() -> None:
    with pytest.raises(UsageError, match=r"too small to hold out a part.*--val-split 0 for no validation"):
        split(FakeStore([(0, 0, 0), (0, 32, 0)]))
    assert len(split(FakeStore([(0, 0, 0), (0, 32, 0)]), 0).train) == 2


def test_an_empty_store_is_refused() -> None:
    with pytest.raises(InputError, match="no training patches"):
        split(FakeStore(count=0), 0)


def test_indices_from_a_file_are_held_out(tmp_path: Path) -> None:
    path = tmp_path / "held.txt"
    path.write_text("7\n\n2\n 4 \n")
    found = split(FakeStore(count=9), val_indices=path)
    assert found.validation.tolist() == [2, 4, 7] and found.train.tolist() == [0, 1, 3, 5, 6, 8]
    path.write_text(write_indices(found.validation))
    assert read_indices(path, 9).tolist() == [2, 4, 7]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1\n9\n", r"line 2: '9' \(allowed: a patch index, 0 to 8\)"),
        ("-1\n", "line 1"),
        ("1.0\n", "line 1"),
        ("1\n2\n1\n", "line 3: patch 1 is on line 1 too"),
        ("\n", "no patch index in it"),
    ],
)
def test_a_wrong_line_is_named(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "held.txt").write_text(text)
    with pytest.raises(FormatError, match=message):
        split(FakeStore(count=9), val_indices=tmp_path / "held.txt")


def test_a_missing_file_or_one_that_names_all_patches_is_refused(tmp_path: Path) -> None:
    with pytest.raises(MissingInputError):
        split(FakeStore(count=2), val_indices=tmp_path / "none.txt")
    (tmp_path / "all.txt").write_text("0\n1\n")
    with pytest.raises(UsageError, match="names all 2 patches"):
        split(FakeStore(count=2), val_indices=tmp_path / "all.txt")


@given(exposures=st.lists(st.integers(0, 5), min_size=2, max_size=12), seed=st.integers(0, 9))
def test_an_exposure_is_never_on_both_sides_however_many_files_show_it(exposures: list[int], seed: int) -> None:
    windows = grid(len(exposures), stride=64)
    found = split(FakeStore(windows, exposures=exposures), 0.3, seed)
    sides = [{(exposures[windows[i][0]], *windows[i][1:]) for i in part} for part in (found.train, found.validation)]
    assert all(sides)
    if len(set(exposures)) > 1:
        assert not {item[0] for item in sides[0]} & {item[0] for item in sides[1]}
    else:
        assert not {item[1] for item in sides[0]} & {item[1] for item in sides[1]}, "one exposure is cut by rows"
