"""The general model shows what no spectrum beyond the signal tells of the noise of single exposures."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from cryoplug.formats.mrc import write_mrc
from cryoplug.metrics.micrograph_noise import MicrographNoise
from cryoplug.metrics.noise_power import POINTS, STEP
from cryoplug.models import shipped
from cryoplug.simulation.micrograph import SimulationSettings, simulate_micrograph
from cryoplug.store.pairs import open_store
from cryoplug.workflows.convert import ConvertRequest, convert

SIDE, PIXEL, ANGPIX = 2048, 1.3, 2.6
PARTICLES = slice(4, 9)
"""0.03 to 0.06 cycles per pixel at 2.6 A/px."""
Colour = Callable[[np.ndarray], np.ndarray]

needs_weights = pytest.mark.skipif(not shipped.is_there(), reason="no weights in this tree")


@pytest.fixture(scope="module")
def clean() -> np.ndarray:
    settings = SimulationSettings(
        size_px=SIDE, pixel_size_angstrom=PIXEL, dose_e_per_angstrom2=10, seed=9, specimen="random"
    )
    return simulate_micrograph(settings, 0).clean.astype(np.float64)


def converted(folder: Path, clean: np.ndarray, colour: Colour) -> tuple[MicrographNoise, np.ndarray, str]:
    """Give the noise that convert records, its error in dB by frequency, and what it says of the file."""
    white = np.random.default_rng(2).poisson(clean) - clean
    frequency = np.hypot(np.fft.fftfreq(SIDE)[:, None], np.fft.rfftfreq(SIDE)[None])
    noise = np.fft.irfft2(np.fft.rfft2(white) * np.sqrt(colour(frequency)), s=clean.shape)
    (folder / "in").mkdir()
    write_mrc(folder / "in" / "m.mrc", (clean + noise).astype(np.float32), pixel_size_angstrom=PIXEL)
    fields = {"pairs": "single", "store": "whole", "patch_size": 128, "test_split": 0.0, "angpix": ANGPIX}
    result = convert(ConvertRequest((str(folder / "in"),), folder / "store", **fields))  # type: ignore[arg-type]
    with open_store(folder / "store") as store:
        assert store.manifest is not None
        (entry,) = store.manifest.micrographs
    found = MicrographNoise.from_dict(entry.noise or {})
    true = colour(np.arange(POINTS) * STEP / 2) * clean.mean() / 4 / entry.normalization["scale"] ** 2
    return found, 10 * np.log10(np.array(found.power) / true), result.files[0].message


@pytest.mark.slow
@needs_weights
def test_the_noise_of_a_camera_that_loses_electrons_is_corrected(tmp_path: Path, clean: np.ndarray) -> None:
    noise, errors, remark = converted(tmp_path, clean, lambda f: 1 - 0.2 * np.exp(-((f / 0.15) ** 2)))
    assert noise.source == "ice"
    assert noise.trusted
    assert "weaker" in remark
    # Uncorrected it is 0.9.
    assert abs(errors[PARTICLES].mean()) < 0.6


@pytest.mark.slow
@needs_weights
def test_the_noise_of_a_camera_whose_blur_reaches_far_is_told(tmp_path: Path, clean: np.ndarray) -> None:
    noise, _, remark = converted(tmp_path, clean, lambda f: 1 + 0.43 * np.exp(-((f / 0.03) ** 2)))
    assert noise.source != "ice"
    assert "stronger than assumed" in remark


@pytest.mark.slow
@needs_weights
def test_noise_that_the_spectrum_tells_is_left_alone(tmp_path: Path, clean: np.ndarray) -> None:
    noise, errors, remark = converted(tmp_path, clean, np.ones_like)
    assert noise.source != "ice"
    assert abs(errors[PARTICLES].mean()) < 0.2
    assert not remark


def test_a_build_without_the_general_model_says_so_and_converts(
    tmp_path: Path, clean: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shipped, "FOLDER", tmp_path / "nothing")
    write_mrc(tmp_path / "m.mrc", np.random.default_rng(1).poisson(clean[:640, :640]), pixel_size_angstrom=PIXEL)
    notes: list[str] = []
    request = ConvertRequest((str(tmp_path / "m.mrc"),), tmp_path / "store", pairs="single", store="whole")
    assert convert(request, note=notes.append).exit_code == 0
    assert any("no general model" in text for text in notes)
