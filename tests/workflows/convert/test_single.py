"""Laws of convert --pairs single: each exposure once, its noise beside it, and a refusal where nobody can know that."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cryoplug.cli.main import run as command_line
from cryoplug.core.fourier_crop import resample_image
from cryoplug.errors import UsageError
from cryoplug.formats.mrc import write_mrc
from cryoplug.metrics.micrograph_noise import MicrographNoise
from cryoplug.metrics.rings import Rings, spectrum
from cryoplug.simulation.micrograph import SimulatedMicrograph, SimulationSettings, simulate_micrograph
from cryoplug.store.pairs import open_store
from cryoplug.workflows.convert import ConvertRequest, convert
from cryoplug.workflows.convert import run as convert_run
from cryoplug.workflows.convert.patch_stream import open_pair

SIDE = 640
PIXEL = 1.3


@pytest.fixture(scope="module")
def simulated() -> list[SimulatedMicrograph]:
    settings = SimulationSettings(size_px=SIDE, pixel_size_angstrom=PIXEL, dose_e_per_angstrom2=12, seed=5)
    return [simulate_micrograph(settings, index) for index in range(2)]


def files(folder: Path, images: list[np.ndarray], pixel: float = PIXEL) -> Path:
    for index, image in enumerate(images):
        write_mrc(folder / f"m{index}.mrc", np.asarray(image, np.float32), pixel_size_angstrom=pixel)
    return folder


def request(folder: Path, out: Path, **changes: Any) -> ConvertRequest:
    fields = {"pairs": "single", "store": "whole", "patch_size": 128, "test_split": 0.0, **changes}
    return ConvertRequest((str(folder),), out, **fields)


@pytest.mark.parametrize("angpix", [None, 2.6])
@pytest.mark.parametrize("counted", [True, False])
def test_the_recorded_noise_is_that_of_the_stored_pixels(
    tmp_path: Path, simulated: list[SimulatedMicrograph], angpix: float | None, counted: bool
) -> None:
    """Scaled grey values are no counts, and yet the same noise is found."""
    gain = 1.0 if counted else 3.7
    folder = files(tmp_path / "in", [gain * item.noisy for item in simulated])
    result = convert(request(folder, tmp_path / "s", angpix=angpix))
    assert result.exit_code == 0
    with open_store(tmp_path / "s") as store:
        assert store.manifest is not None
        for item, entry in zip(simulated, store.manifest.micrographs, strict=True):
            assert entry.noise is not None
            noise = MicrographNoise.from_dict(entry.noise)
            assert noise.source == ("counts" if counted else "spectrum")
            assert noise.trusted
            error = gain * (item.noisy - item.clean)
            error = resample_image(error, entry.shape) / entry.normalization["scale"]
            rings = Rings.of(entry.shape, most=16)
            terms = spectrum(error, taper=True)
            true = rings.cross(terms, terms) / (rings.count / rings.count.sum())
            found = np.interp(rings.frequency, np.arange(92) / 128, noise.power)
            inside = slice(2, 16)
            assert np.abs(10 * np.log10(found[inside] / true[inside])).mean() < 0.3
            assert noise.variance == pytest.approx(error.var(), rel=0.05)


def test_noise_that_cannot_be_told_fails_that_micrograph_and_says_what_to_do(
    tmp_path: Path, simulated: list[SimulatedMicrograph], capsys: pytest.CaptureFixture[str]
) -> None:
    frequency = np.hypot(np.fft.fftfreq(SIDE)[:, None], np.fft.rfftfreq(SIDE)[None])
    filtered = np.fft.irfft2(np.fft.rfft2(simulated[1].noisy) / (1 + (frequency / 0.3) ** 8), s=(SIDE, SIDE))
    folder = files(tmp_path / "in", [simulated[0].noisy, filtered])
    words = ["convert", "--pairs", "single", "--store", "whole", "--patch-size", "128", str(folder)]
    assert command_line([*words, "-o", str(tmp_path / "s")]) == 3
    text = capsys.readouterr()
    assert "--pairs halves" in text.err + text.out
    assert "general model" in text.err + text.out
    with open_store(tmp_path / "s") as store:
        assert store.manifest is not None
        assert [item.name for item in store.manifest.failures] == ["m1.mrc"]
    assert command_line([*words, "-o", str(tmp_path / "t"), "--accept-unproven"]) == 0
    record = json.loads((tmp_path / "t" / "dataset.json").read_text())
    trusted = {entry["name"]: entry["noise"]["trusted"] for entry in record["micrographs"]}
    assert trusted == {"m0.mrc": True, "m1.mrc": False}


def test_the_exposure_is_stored_once_and_the_same_request_finds_it_complete(
    tmp_path: Path, simulated: list[SimulatedMicrograph]
) -> None:
    folder = files(tmp_path / "in", [simulated[0].noisy])
    convert(request(folder, tmp_path / "s"))
    assert sorted(path.name for path in (tmp_path / "s").iterdir()) == ["dataset.json", "noisy_train.bin"]
    assert (tmp_path / "s" / "noisy_train.bin").stat().st_size == 4 * SIDE * SIDE
    before = (tmp_path / "s" / "dataset.json").read_bytes()
    assert convert(request(folder, tmp_path / "s")).details["complete"]
    assert (tmp_path / "s" / "dataset.json").read_bytes() == before


def test_the_time_of_a_micrograph_includes_its_measurement(
    tmp_path: Path, simulated: list[SimulatedMicrograph], monkeypatch: pytest.MonkeyPatch
) -> None:
    def slow(*arguments: Any) -> Any:
        time.sleep(0.3)
        return open_pair(*arguments)

    monkeypatch.setattr(convert_run, "open_pair", slow)
    folder = files(tmp_path / "in", [item.noisy for item in simulated])
    assert all(file.seconds >= 0.3 for file in convert(request(folder, tmp_path / "s")).files)


def test_patches_are_stored_too(tmp_path: Path, simulated: list[SimulatedMicrograph]) -> None:
    folder = files(tmp_path / "in", [simulated[0].noisy])
    convert(request(folder, tmp_path / "s", store="patches", stride=128, format="hdf5"))
    with open_store(tmp_path / "s") as store:
        assert store.count() == 25


def test_what_is_too_small_fails_by_its_name(tmp_path: Path) -> None:
    folder = files(tmp_path / "in", [np.random.default_rng(1).normal(size=(100, 300))])
    result = convert(request(folder, tmp_path / "s", patch_size=64))
    assert "128 or more" in result.files[0].message
    assert not (tmp_path / "s" / "dataset.json").exists()


@pytest.mark.parametrize("changes", [{"normalize": "percentile"}, {"clean": ("x",)}, {"even": ("x",), "odd": ("y",)}])
def test_what_single_exposures_do_not_have_is_refused(tmp_path: Path, changes: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match="single"):
        request(tmp_path, tmp_path / "s", **changes)
