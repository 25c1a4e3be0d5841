"""The border of an image is not seen in the result, and inside nothing changes, on all roads."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch

from cryoplug.formats.mrc import write_mrc
from cryoplug.formats.registry import open_micrograph
from cryoplug.inference.delivery import Delivery
from cryoplug.inference.denoiser import Denoiser
from cryoplug.inference.network.borders import band_borders, border_width, continued
from cryoplug.inference.pipeline import DenoiseJob, run_pipeline
from cryoplug.models.checkpoint import Checkpoint, load_checkpoint
from cryoplug.models.registry import model_spec

UNET = {"depth": 2, "width": 4}


def checkpoint_of(model: str, normalize: str = "percentile", *, founding: bool = False) -> Checkpoint:
    config = UNET if model == "unet" else {}
    network = model_spec(model).build(seed=3, config=config)
    weights = {name: tensor.numpy() for name, tensor in network.state_dict().items()}
    if model == "unet":
        weights["output.weight"] = np.random.default_rng(1).normal(0, 0.05, weights["output.weight"].shape).astype("f4")
    return Checkpoint(model, weights, config, normalize, founding=founding)


def micrograph(shape: tuple[int, int] = (150, 170)) -> np.ndarray:
    return np.random.default_rng(5).normal(40, 6, shape).astype(np.float32)


def plain(checkpoint: Checkpoint, pixels: np.ndarray, dtype: torch.dtype = torch.float32) -> np.ndarray:
    module = checkpoint.spec.build(config=checkpoint.config)
    module.load_state_dict({name: torch.from_numpy(array) for name, array in checkpoint.weights.items()})
    with torch.inference_mode():
        return module.to(dtype)(torch.from_numpy(pixels)[None, None].to(dtype))[0, 0].numpy()


def as_exact_as_plain_layers(found: np.ndarray, checkpoint: Checkpoint, pixels: np.ndarray, scale: float = 1) -> bool:
    # How exact float32 is depends on the weights, on the processor and on the order of sums.
    exact = scale * plain(checkpoint, pixels, torch.float64)
    usual = np.abs(scale * plain(checkpoint, pixels) - exact).max()
    return np.abs(found - exact).max() <= 2 * usual + 1e-6 * np.ptp(exact)


@pytest.mark.parametrize("model", ["cryo_cnn", "residual_cnn", "unet"])
@pytest.mark.parametrize("shape", [(130, 150), (61, 90), (1, 157), (157, 1), (5, 3), (1, 1)])
@pytest.mark.parametrize("tile", [0, 40])
def test_the_network_sees_the_mirror_image_beyond_the_border_whatever_the_tiles(model, shape, tile) -> None:
    checkpoint = checkpoint_of(model, "zscore")
    denoiser = Denoiser(checkpoint, device="cpu", threads=2, tile=tile)
    image = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    spec = checkpoint.spec
    width = border_width(-(-spec.receptive_field_px // spec.size_multiple) * spec.size_multiple, spec.size_multiple)
    wide = plain(checkpoint, np.pad(image, width, mode="reflect"))
    wanted = wide[width : width + shape[0], width : width + shape[1]]
    found = np.empty(shape, np.float32)
    for band in denoiser.bands(shape):
        found[band.paste.slices] = denoiser.forward(image[band.read.slices], band)
    assert np.abs(found - wanted).max() <= 1e-5 * max(np.ptp(wanted), 1e-2)
    whole = denoiser.forward_on_device(torch.from_numpy(image)).numpy()
    assert np.abs(whole - wanted).max() <= 1e-5 * max(np.ptp(wanted), 1e-2)


@pytest.mark.parametrize("model", ["cryo_cnn", "residual_cnn"])
def test_inside_by_the_receptive_field_it_is_the_founding_networks_result(model: str) -> None:
    image = micrograph((260, 310))
    ours = Denoiser(checkpoint_of(model), device="cpu", threads=1)
    theirs = Denoiser(checkpoint_of(model, founding=True), device="cpu", threads=1)
    assert theirs.bare and not ours.bare
    inside = (slice(checkpoint_of(model).spec.receptive_field_px, -checkpoint_of(model).spec.receptive_field_px),) * 2
    found, wanted = ours.denoise(image), theirs.denoise(image)
    # The library may sum in an order that depends on the width of a tile, and on the processor.
    digits = 8 * np.finfo(np.float32).eps
    shift = found[130, 150] - wanted[130, 150]
    most = digits * np.abs(wanted).max()
    assert np.allclose(found[inside] - wanted[inside], shift, rtol=0, atol=most), "the mean, which is kept, apart"
    (band,) = ours.bands((100, 310))
    pixels = image[:100] / 50
    found, wanted = ours.forward(pixels, band)[inside], theirs.forward(pixels, band)[inside]
    assert np.abs(found - wanted).max() <= digits * np.abs(wanted).max()


@pytest.mark.parametrize("mean", [12.0, 40.0, 6800.0])
def test_the_first_rows_and_columns_look_like_all_others(mean: float) -> None:
    image = np.random.default_rng(2).normal(mean, 3, (200, 220)).astype(np.float32)
    checkpoint = checkpoint_of("cryo_cnn")
    checkpoint.weights["conv3.bias"][:] = 0.7
    found = Denoiser(checkpoint, device="cpu", threads=1).denoise(image)
    middle = found[20:-20, 20:-20]
    for edge in (found[0], found[1], found[-1], found[:, 0], found[:, 2], found[:, -1]):
        assert abs(edge.mean() - middle.mean()) < 4 * middle.std() / np.sqrt(edge.size) + 0.05 * middle.std()
        assert 0.7 * middle.std() < edge.std() < 1.4 * middle.std()
    framed = Denoiser(dataclasses.replace(checkpoint, founding=True), device="cpu", threads=1).denoise(image)
    assert abs(framed[0].mean() - framed[20:-20].mean()) > 5 * framed[20:-20, 20:-20].std(), "what it is about"


@pytest.mark.parametrize("kind", ["percentile", "zscore"])
@pytest.mark.parametrize("whole", [False, True])
@pytest.mark.parametrize("model", ["cryo_cnn", "unet"])
def test_files_have_what_an_array_in_memory_gets(tmp_path: Path, kind: str, whole: bool, model: str) -> None:
    image = micrograph((190, 333))
    image[40, 50] = 20000
    write_mrc(tmp_path / "m.mrc", image)
    denoiser = Denoiser(checkpoint_of(model, kind), device="cpu", threads=1)
    results = []
    run_pipeline(
        [DenoiseJob(tmp_path / "m.mrc", tmp_path / "out.mrc")],
        denoiser,
        Delivery(lambda job, result: results.append(result), "test"),
        whole=whole,
    )
    wanted = denoiser.denoise(image)
    with open_micrograph(tmp_path / "out.mrc") as written:
        assert np.abs(written.read_rows(0, 190) - wanted).max() < 1e-4 * wanted.std() + 1e-5 * np.ptp(wanted)
    assert results[0].hot_pixels == 1 and "1 hot pixel was replaced" in results[0].message
    assert wanted[40, 50] == pytest.approx(wanted.mean(), abs=6 * float(wanted.std())), "the network did not see it"


def test_a_founding_folder_and_the_bare_network_stay_as_they_are(seed_checkpoints: Path) -> None:
    image = micrograph()
    image[40, 50] = 20000
    for name in ("cryo_cnn", "deep12", "n2n_real"):
        checkpoint = load_checkpoint(seed_checkpoints / name)
        assert checkpoint.founding
        scale = float(np.percentile(image, 95))
        clipped = np.clip(image / np.float32(scale), 0, 1)
        assert as_exact_as_plain_layers(Denoiser(checkpoint, device="cpu").denoise(image), checkpoint, clipped, scale)
        bare = Denoiser(checkpoint, device="cpu", normalize="none")
        assert as_exact_as_plain_layers(bare.denoise(image), checkpoint, image)
        assert not Denoiser(checkpoint, device="cpu", normalize="zscore").bare


def test_bands_are_continued_where_the_border_is_in_sight_and_nowhere_else() -> None:
    denoiser = Denoiser(checkpoint_of("unet"), device="cpu", threads=1, tile=24)
    overlap = denoiser._overlap
    added = [band_borders(band, overlap_px=overlap, width_px=16) for band in denoiser.bands((400, 60))]
    assert added[0] == (16, 0) and added[-1] == (0, 16)
    assert sum(above > 0 for above, _ in added) < len(added) / 3
    rows = np.arange(12, dtype=np.float32).reshape(4, 3)
    assert continued(rows, 1, 0, 0)[0].tolist() == rows[1].tolist(), "the border itself is not repeated"


def test_a_founding_checkpoint_says_how_it_is_applied_and_others_say_nothing() -> None:
    said: list[str] = []
    for founding, normalize in ((True, "percentile"), (True, "zscore"), (False, "percentile"), (True, "none")):
        Denoiser(checkpoint_of("residual_cnn", founding=founding), normalize=normalize, device="cpu", note=said.append)
    assert len(said) == 1 and "leave a dark frame of 12 px" in said[0]
