"""Stores of micrographs that were Fourier-cropped to a pixel size."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from cryoplug.core.fourier_crop import resample_image, resample_open_axis
from cryoplug.core.micrograph import ArrayMicrograph
from cryoplug.core.normalization import fit_normalization
from cryoplug.errors import UsageError
from cryoplug.formats.mrc_writer import write_mrc
from cryoplug.store.pairs import PairStore, open_store
from cryoplug.workflows.convert import ConvertRequest, convert

PATCH = 32
SHAPE = (150, 201)


def half(side: int) -> np.ndarray:
    signal = np.random.default_rng(5).normal(0, 60, SHAPE)
    for axis in (0, 1):
        signal = sum(np.roll(signal, k, axis) for k in range(-3, 4)) / 7
    return (50 + signal + np.random.default_rng(side).normal(0, 12, SHAPE)).astype(np.float32)


def write(path: Path, pixels: np.ndarray, pixel_size: float | None = 1.5) -> str:
    write_mrc(path, pixels, pixel_size_angstrom=pixel_size)
    return str(path)


def everything(store: PairStore) -> tuple[np.ndarray, np.ndarray]:
    noisy, clean = (np.empty((store.count("train"), *store.patch_shape), np.float32) for _ in range(2))
    store.read(range(len(noisy)), noisy, clean)
    return noisy, clean


def test_both_halves_are_cropped_alike_then_normalised_each_by_itself(tmp_path: Path) -> None:
    paths = [write(tmp_path / f"m_{name}.mrc", half(side)) for side, name in enumerate(("EVN", "ODD"))]
    result = convert(
        ConvertRequest(
            (),
            tmp_path / "s",
            pairs="halves",
            even=(paths[0],),
            odd=(paths[1],),
            angpix=3.1,
            patch_size=PATCH,
            stride=PATCH,
        )
    )
    assert result.exit_code == 0
    with open_store(tmp_path / "s") as store:
        assert store.manifest is not None
        entry = store.manifest.micrographs[0]
        assert entry.shape == (73, 97) and entry.pixel_size_angstrom == 3.1
        assert store.manifest.pixel_size_angstrom == 3.1 and store.manifest.angpix == 3.1
        windows = [row[1:] for row in store.manifest.windows["train"]]
        assert windows == [(y, x) for y in (0, 32) for x in (0, 32, 64)]
        for side, found in enumerate(everything(store)):
            small = resample_image(half(side), (73, 97), resample=resample_open_axis)
            expected = fit_normalization(ArrayMicrograph(small), "zscore").apply(small)
            for patch, (y, x) in zip(found, windows, strict=True):
                np.testing.assert_allclose(patch, expected[y : y + PATCH, x : x + PATCH], atol=1e-5)


def test_noise_is_added_after_the_crop(tmp_path: Path) -> None:
    path = write(tmp_path / "m.mrc", half(0) + 100)
    convert(ConvertRequest((path,), tmp_path / "s", angpix=3.0, patch_size=PATCH, stride=PATCH))
    with open_store(tmp_path / "s") as store:
        noisy, clean = everything(store)
        small = resample_image(half(0) + 100, (75, 100), resample=resample_open_axis)
        expected = fit_normalization(ArrayMicrograph(small), "percentile").apply(small)
        np.testing.assert_allclose(clean[0], expected[:PATCH, :PATCH], atol=1e-5)
        # Poisson(100 c) / 100 and a deviation of 0.05: what the recipe adds, not less.
        assert (noisy - clean).std() == pytest.approx(0.1, rel=0.2)


@pytest.mark.parametrize(
    ("pixel_size", "angpix", "message"),
    [
        (None, 3.0, "pixel size is not known, and --angpix 3 needs it; state it with --pixel-size A"),
        (4.0, 3.0, "coarser than --angpix 3; give --angpix 4 or more"),
        (1.5, 20.0, "at 20 angstrom, smaller than one patch of 32x32; give --patch-size 11 or less"),
    ],
)
def test_a_micrograph_that_cannot_be_cropped_fails_with_advice(
    tmp_path: Path, pixel_size: float | None, angpix: float, message: str
) -> None:
    path = write(tmp_path / "m.mrc", half(0), pixel_size)
    result = convert(ConvertRequest((path,), tmp_path / "s", angpix=angpix, patch_size=PATCH, stride=PATCH))
    assert [item.status for item in result.files] == ["failed"]
    assert message in result.files[0].message


def test_a_pixel_size_that_is_reached_already_changes_no_bit(tmp_path: Path) -> None:
    path = write(tmp_path / "m.mrc", half(0) + 100)
    for name, angpix in (("a", 1.5), ("b", None)):
        convert(ConvertRequest((path,), tmp_path / name, angpix=angpix, patch_size=PATCH, stride=PATCH))
    for name in ("noisy_train.bin", "clean_train.bin"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_a_store_of_another_pixel_size_is_another_store(tmp_path: Path) -> None:
    path = write(tmp_path / "m.mrc", half(0) + 100)
    for _ in range(2):
        result = convert(ConvertRequest((path,), tmp_path / "s", angpix=3.0, patch_size=PATCH, stride=PATCH))
    assert result.details["complete"] is True
    for other in (None, 3.5):
        with pytest.raises(UsageError, match="made with other angpix"):
            convert(ConvertRequest((path,), tmp_path / "s", angpix=other, patch_size=PATCH, stride=PATCH))


@pytest.mark.parametrize("angpix", [0.0, -1.0, float("nan"), float("inf")])
def test_a_pixel_size_that_is_none_is_refused(tmp_path: Path, angpix: float) -> None:
    with pytest.raises(UsageError, match=r"--angpix .*allowed: a pixel size in angstrom above 0"):
        ConvertRequest(("m.mrc",), tmp_path / "s", angpix=angpix)
