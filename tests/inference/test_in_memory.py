"""The Python API gives what ``cryoplug denoise`` writes, for every checkpoint and every setting."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import mrcfile
import numpy as np
import pytest

from cryoplug.errors import PixelError, UsageError
from cryoplug.formats.mrc_writer import write_mrc
from cryoplug.inference.denoiser import Denoiser
from cryoplug.models.checkpoint import Checkpoint, save_checkpoint
from cryoplug.models.registry import model_spec
from cryoplug.workflows.denoise import DenoiseRequest, denoise

SHAPE = (81, 120)


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def checkpoint(
    model: str = "cryo_cnn", normalize: str = "zscore", config: dict[str, Any] | None = None, **details: Any
) -> Path:
    spec = model_spec(model)
    config = {"depth": 2, "width": 4} if model == "unet" and config is None else config
    weights = {key: tensor.numpy() for key, tensor in spec.build(config=config, seed=1).state_dict().items()}
    path = Path("run") / "epoch_0001"
    save_checkpoint(path, Checkpoint(model, weights, config or {}, normalize, details=details), 0.5)
    return path


def pixels(mean: float = 1000.0) -> np.ndarray:
    return np.random.default_rng(0).normal(mean, 30, SHAPE).astype(np.float32)


def by_command(path: Path, image: np.ndarray, size: float, **options: Any) -> np.ndarray:
    write_mrc(Path("m.mrc"), image, pixel_size_angstrom=size)
    result = denoise(
        DenoiseRequest(
            ("m.mrc",), path, Path("out"), device="cpu", threads=2, overwrite=True, previews=False, **options
        )
    )
    assert [item.status for item in result.files] == ["done"], result.files
    return mrcfile.read("out/m.mrc")


@pytest.mark.parametrize("normalize", ["zscore", "percentile", "none"])
@pytest.mark.parametrize("model", ["cryo_cnn", "residual_cnn", "unet"])
@pytest.mark.parametrize(
    ("details", "options"),
    [
        ({}, {}),
        ({"angpix": 3.1}, {}),
        ({"angpix": 3.1}, {"angpix": 0.0}),
        ({"angpix": 1.2}, {}),
        ({"angpix": 3.0, "angpix_range": [2.0, 5.0]}, {}),
        ({}, {"angpix": 3.0, "strength": 0.3}),
        ({"angpix": 3.1}, {"tta": "on", "merge_highres": 12.0, "strength": 0.7}),
        ({}, {"merge_highres": 9.0, "normalize": "zscore", "tile": 32}),
        ({"angpix": 3.1}, {"highpass": 200.0, "lowpass": 12.0}),
        ({}, {"output_angpix": 4.0, "strength": 0.5}),
    ],
)
def test_the_api_gives_what_the_command_writes(
    model: str, normalize: str, details: dict[str, Any], options: dict[str, Any]
) -> None:
    path, image = checkpoint(model, normalize, **details), pixels()
    wanted = by_command(path, image, 1.5, **options)
    found = Denoiser.from_checkpoint(path, device="cpu", threads=1, **options).denoise(image, pixel_size_angstrom=1.5)
    assert found.dtype == np.float32 and found.shape == wanted.shape
    # Float32 rounding, of the grey values and of what came out.
    largest = max(float(np.abs(image).max()), float(np.abs(wanted).max()))
    np.testing.assert_allclose(found, wanted, rtol=0, atol=4e-6 * largest)
    assert np.abs(wanted - wanted.mean()).max() > 1e-3 * np.abs(wanted).max(), "nothing was compared"


@pytest.mark.parametrize("target", ["image", "particles"])
@pytest.mark.parametrize("size", [1.5, 3.0, 6.0])
def test_so_it_is_with_a_network_of_two_outputs(target: str, size: float) -> None:
    config = {"depth": 2, "width": 4, "outputs": 2, "skip": "none", "clip": 6.0}
    path, image = checkpoint("unet", "robust", config, angpix=2.6, angpix_range=[2.0, 5.0]), pixels()
    wanted = by_command(path, image, size, target=target)
    found = Denoiser.from_checkpoint(path, device="cpu", target=target).denoise(image, pixel_size_angstrom=size)
    np.testing.assert_allclose(found, wanted, rtol=0, atol=4e-6 * float(np.abs(wanted).max()))


@pytest.mark.parametrize(
    ("details", "options", "why"),
    [
        ({"angpix": 3.1}, {}, "the network works at 3.1 angstrom"),
        ({}, {"angpix": 3.0}, "the network works at 3 angstrom"),
        ({}, {"merge_highres": 9.0}, "--merge-highres 9"),
    ],
)
def test_the_pixel_size_is_required_where_it_matters(
    details: dict[str, Any], options: dict[str, Any], why: str
) -> None:
    denoiser = Denoiser.from_checkpoint(checkpoint(**details), device="cpu", **options)
    with pytest.raises(UsageError, match=why) as error:
        denoiser.denoise(pixels())
    assert "pixel_size_angstrom=" in str(error.value)


def test_without_a_pixel_size_of_the_network_it_may_be_left_out() -> None:
    denoiser = Denoiser.from_checkpoint(checkpoint(), device="cpu")
    np.testing.assert_array_equal(denoiser.denoise(pixels()), denoiser.denoise(pixels(), pixel_size_angstrom=1.5))


@pytest.mark.parametrize("details", [{}, {"angpix": 3.0}])
def test_unusable_pixels_are_refused_before_they_are_resampled(details: dict[str, Any]) -> None:
    image = pixels()
    image[3, 5] = np.nan
    with pytest.raises(PixelError, match=r"1 .*NaN"):
        Denoiser.from_checkpoint(checkpoint(**details), device="cpu").denoise(image, pixel_size_angstrom=1.5)


@pytest.mark.parametrize("size", [0.0, -1.0, float("nan"), float("inf")])
def test_a_pixel_size_that_is_none_is_refused(size: float) -> None:
    with pytest.raises(UsageError, match=r"pixel_size_angstrom=.*allowed"):
        Denoiser.from_checkpoint(checkpoint(), device="cpu").denoise(pixels(), pixel_size_angstrom=size)


@pytest.mark.parametrize(
    ("size", "told"), [(2.6, ""), (0.1, "check that this number is right"), (5.5, "coarser than the 5 A")]
)
def test_an_odd_pixel_size_is_named_in_memory_too(size: float, told: str) -> None:
    said: list[str] = []
    path = checkpoint(angpix=2.6, angpix_range=[2.0, 5.0])
    Denoiser.from_checkpoint(path, device="cpu", note=said.append).denoise(pixels(), pixel_size_angstrom=size)
    assert (told in " ".join(said)) if told else not said
