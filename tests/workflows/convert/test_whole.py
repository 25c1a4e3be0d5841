"""``convert --store whole``: every pixel of every micrograph once, as the patches would hold it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from cryoplug.cli.convert import convert as command
from cryoplug.core.noise import founding_noise, patch_rng
from cryoplug.core.normalization import Normalization
from cryoplug.errors import StorageError, UsageError
from cryoplug.formats.mrc_writer import write_mrc
from cryoplug.store.pairs import PairStore, open_store
from cryoplug.store.raw import RawWriter
from cryoplug.workflows.convert import ConvertRequest, convert, patch_stream
from cryoplug.workflows.inspect.stores import inspect_store

SIDE = 48
SHAPES = [(150, 200), (140, 110), (130, 130), (160, 75)]


def half(exposure: int, side: int) -> np.ndarray:
    """Blobs that belong to the exposure, and noise of this half alone."""
    signal = np.random.default_rng(exposure).normal(0, 60, SHAPES[exposure]).astype(np.float32)
    for axis in (0, 1):
        signal = sum(np.roll(signal, k, axis) for k in range(-3, 4)) / 7
    return 50 + signal + np.random.default_rng([exposure, side]).normal(0, 12, signal.shape).astype(np.float32)


@pytest.fixture
def halves(tmp_path: Path) -> Path:
    (tmp_path / "halves").mkdir()
    for index in range(len(SHAPES)):
        for side, name in enumerate(("EVN", "ODD")):
            path = tmp_path / "halves" / f"m{index}_{name}.mrc"
            write_mrc(path, half(index, side).astype(np.float32), pixel_size_angstrom=1.5)
    return tmp_path / "halves"


def request(halves: Path, output: Path, **changes: object) -> ConvertRequest:
    fields = {"store": "whole", "pairs": "halves", "patch_size": SIDE, "test_split": 0.25, **changes}
    if fields["pairs"] == "noise":
        return ConvertRequest((str(halves / "*_EVN.mrc"),), output, **fields)
    even, odd = ((str(halves / f"*_{name}.mrc"),) for name in ("EVN", "ODD"))
    return ConvertRequest((), output, even=even, odd=odd, **fields)


def stored(store: PairStore, side: int) -> dict[int, np.ndarray]:
    found = {}
    assert store.manifest is not None
    for split in store.splits:
        for image, (micrograph, _, _) in enumerate(store.manifest.windows[split]):
            pixels = np.empty(store.image_shape(image, split), store.dtype)
            store.read_pixels(side, image, 0, pixels.reshape(-1), split=split)
            found[store.manifest.micrographs[micrograph].index] = pixels
    return found


@pytest.mark.parametrize("format", ["bin", "hdf5"])
@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_each_half_is_there_once_normalised_by_its_own_numbers(
    halves: Path, tmp_path: Path, format: str, dtype: str
) -> None:
    result = convert(request(halves, tmp_path / "s", format=format, dtype=dtype))
    assert result.exit_code == 0 and (result.details["train"], result.details["test"]) == (3, 1)
    with open_store(tmp_path / "s") as store:
        assert store.manifest is not None and store.whole
        for side in range(2):
            pixels = stored(store, side)
            assert {index: item.shape for index, item in pixels.items()} == dict(enumerate(SHAPES))
            for entry in store.manifest.micrographs:
                numbers = entry.clean_normalization if side else entry.normalization
                assert numbers is not None
                expected = Normalization.from_dict(numbers).apply(half(entry.index, side).astype(np.float32))
                assert np.array_equal(pixels[entry.index], expected.astype(dtype))
        assert store.verify() == []
    bytes_of_pixels = sum(y * x for y, x in SHAPES) * 2 * np.dtype(dtype).itemsize
    files = list((tmp_path / "s").iterdir())
    assert bytes_of_pixels <= sum(item.stat().st_size for item in files) < bytes_of_pixels + 30_000


def test_noise_follows_the_recipe_band_by_band_whatever_the_threads(halves: Path, tmp_path: Path) -> None:
    for threads in (1, 4):
        convert(request(halves, tmp_path / str(threads), pairs="noise", threads=threads, seed=5))
    with open_store(tmp_path / "1") as store, open_store(tmp_path / "4") as other:
        noisy, clean = (stored(store, side) for side in range(2))
        assert all(np.array_equal(noisy[index], pixels) for index, pixels in stored(other, 0).items())
    for index, pixels in clean.items():
        expected = founding_noise(pixels, patch_rng(5, index, 0, 0))
        assert np.array_equal(noisy[index], expected), "these micrographs are one band"


def test_bands_make_no_difference_to_pixels_that_need_no_noise(
    halves: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = convert(request(halves, tmp_path / "a")).details["fingerprint"]
    monkeypatch.setattr(patch_stream, "_BAND_ROWS", 7)
    assert convert(request(halves, tmp_path / "b")).details["fingerprint"] == one


@pytest.mark.parametrize(("calls", "safe"), [(1, 0), (3, 1), (5, 1), (6, 2)])
def test_a_convert_that_broke_goes_on_to_the_same_bytes(
    halves: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, calls: int, safe: int
) -> None:
    monkeypatch.setattr(patch_stream, "_BAND_ROWS", 64)
    convert(request(halves, tmp_path / "straight"))
    real, left = RawWriter._write_rows, [calls]

    def full(self: RawWriter, *arguments: object) -> None:
        left[0] -= 1
        if left[0] < 0:
            raise StorageError("disk full")
        real(self, *arguments)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(RawWriter, "_write_rows", full)
        with pytest.raises(StorageError):
            convert(request(halves, tmp_path / "out"))
    result = convert(request(halves, tmp_path / "out"))
    assert [item.status for item in result.files].count("skipped") == safe
    for item in (tmp_path / "straight").iterdir():
        assert item.read_bytes() == (tmp_path / "out" / item.name).read_bytes(), item.name


def test_another_kind_of_store_is_not_taken_for_this_one(halves: Path, tmp_path: Path) -> None:
    convert(request(halves, tmp_path / "s"))
    assert convert(request(halves, tmp_path / "s", stride=7)).details["complete"], "whole micrographs have no stride"
    with pytest.raises(UsageError, match="a finished store made with other store"):
        convert(request(halves, tmp_path / "s", store="patches"))


def test_the_command_and_inspect_say_what_is_there(halves: Path, tmp_path: Path) -> None:
    words = ["--pairs", "halves", str(halves), "-o", str(tmp_path / "s"), "--store", "whole", "--patch-size", str(SIDE)]
    done = CliRunner().invoke(command, [*words, "--json"])
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout.splitlines()[-1])["whole"] is True
    found = inspect_store(tmp_path / "s", verify=True)
    assert found.findings == () and found.summary["store"] == "whole"
    assert sum(len(found.summary[split]["stored_whole"]) for split in ("train", "test")) == 4
    assert found.summary["train"]["pairs"] + found.summary["test"]["pairs"] == 12 + 4 + 4 + 3
