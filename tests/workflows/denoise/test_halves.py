"""Laws of denoising by halves."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from cryoplug.cli.main import run as command_line
from cryoplug.core.results import BatchResult
from cryoplug.errors import PairingError, UsageError
from cryoplug.formats.mrc import write_mrc
from cryoplug.formats.registry import open_micrograph
from cryoplug.models.checkpoint import Checkpoint, save_checkpoint
from cryoplug.models.registry import model_spec
from cryoplug.simulation.micrograph import SimulationSettings, simulate_micrograph
from cryoplug.workflows.denoise import DenoiseRequest, denoise
from cryoplug.workflows.denoise.rehearsal import rehearse

SETTINGS = SimulationSettings(size_px=192, pixel_size_angstrom=6)
INNER = (slice(8, -8), slice(8, -8))


@pytest.fixture
def exposures(tmp_path: Path) -> Path:
    """Two exposures with their halves beside them."""
    folder = tmp_path / "raw"
    folder.mkdir()
    for index in range(2):
        made = simulate_micrograph(SETTINGS, index)
        for ending, pixels in (("", made.noisy), ("_EVN", made.even), ("_ODD", made.odd)):
            write_mrc(folder / f"mic{index}{ending}.mrc", pixels, pixel_size_angstrom=6)
    return folder


@pytest.fixture(scope="module")
def linear(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A blur: what it makes of a sum is the sum of what it makes of the parts."""
    kernel = np.outer([1, 2, 1], [1, 2, 1]) / 16
    weights = {name: np.zeros(t.shape, np.float32) for name, t in model_spec("cryo_cnn").build().state_dict().items()}
    weights["conv1.weight"][0, 0] = weights["conv2.weight"][0, 0] = weights["conv3.weight"][0, 0] = kernel
    weights["conv1.bias"][0], weights["conv3.bias"][0] = 30, -30
    folder = tmp_path_factory.mktemp("checkpoint") / "run"
    save_checkpoint(folder / "epoch_0001", Checkpoint("cryo_cnn", weights, normalize="zscore"), 0.5)
    return folder


def run(inputs: str | Path, checkpoint: Path, output: Path, **fields: object) -> BatchResult:
    request = DenoiseRequest((str(inputs),), checkpoint, output, device="cpu", threads=1, **fields)  # type: ignore[arg-type]
    return denoise(request)


def pixels(path: Path) -> np.ndarray:
    with open_micrograph(path) as source:
        return source.read_rows(0, source.shape[0])


def test_a_linear_network_makes_of_the_halves_what_it_makes_of_their_sum(
    exposures: Path, linear: Path, tmp_path: Path
) -> None:
    plain = run(f"{exposures}/mic?.mrc", linear, tmp_path / "plain")
    halves = run(f"{exposures}/mic?.mrc", linear, tmp_path / "halves", halves=True)
    assert plain.exit_code == halves.exit_code == 0
    for index in range(2):
        one, two = (pixels(tmp_path / name / f"mic{index}.mrc") for name in ("plain", "halves"))
        assert np.abs(one - two)[INNER].max() < 1e-3 * one.std()
    with open_micrograph(tmp_path / "halves" / "mic0.mrc") as source:
        assert source.pixel_size_angstrom == pytest.approx(6)


def test_halves_alone_give_one_result_in_units_of_their_sum(exposures: Path, linear: Path, tmp_path: Path) -> None:
    beside = run(f"{exposures}/mic?.mrc", linear, tmp_path / "beside", halves=True)
    for path in exposures.glob("mic?.mrc"):
        path.unlink()
    alone = run(exposures, linear, tmp_path / "alone", halves=True)
    assert len(beside.files) == len(alone.files) == 2
    assert sorted(path.name for path in (tmp_path / "alone").glob("*.mrc")) == ["mic0.mrc", "mic1.mrc"]
    for index in range(2):
        one, two = (pixels(tmp_path / name / f"mic{index}.mrc") for name in ("beside", "alone"))
        assert np.abs(one - two).max() < 1e-3 * one.std()


def test_a_micrograph_that_is_a_mean_keeps_its_own_grey_values(exposures: Path, linear: Path, tmp_path: Path) -> None:
    path = exposures / "mic0.mrc"
    write_mrc(path, 3 + pixels(path) / 41, pixel_size_angstrom=6)
    run(path, linear, tmp_path / "plain")
    run(path, linear, tmp_path / "halves", halves=True)
    one, two = (pixels(tmp_path / name / "mic0.mrc") for name in ("plain", "halves"))
    assert np.abs(one - two)[INNER].max() < 1e-3 * one.std()


def test_halves_of_a_star_file_are_taken_and_its_rows_kept(exposures: Path, linear: Path, tmp_path: Path) -> None:
    other = tmp_path / "elsewhere"
    other.mkdir()
    lines = ["data_", "", "loop_", "_rlnMicrographName #1", "_rlnMicrographNameEven #2", "_rlnMicrographNameOdd #3"]
    for index in range(2):
        halves = [
            shutil.move(exposures / f"mic{index}_{side}.mrc", other / f"{side}{index}.mrc") for side in ("EVN", "ODD")
        ]
        lines.append(f"{exposures}/mic{index}.mrc {halves[0]} {halves[1]}")
    star = tmp_path / "in.star"
    star.write_text("\n".join(lines) + "\n")
    result = run(star, linear, tmp_path / "out", halves=True, star=tmp_path / "out.star")
    assert result.exit_code == 0 and len(result.files) == 2
    text = (tmp_path / "out.star").read_text()
    assert str(tmp_path / "out" / "mic0.mrc") in text and "rlnMicrographNameEven" in text


def test_what_is_no_half_is_refused_for_its_exposure_alone(exposures: Path, linear: Path, tmp_path: Path) -> None:
    shutil.copy(exposures / "mic0_EVN.mrc", exposures / "mic0_ODD.mrc")
    result = run(f"{exposures}/mic?.mrc", linear, tmp_path / "copy", halves=True)
    assert [item.status for item in result.files] == ["failed", "done"]
    assert "are one image" in result.files[0].message
    shutil.copy(exposures / "mic1.mrc", exposures / "mic0.mrc")
    made = simulate_micrograph(SETTINGS, 0)
    write_mrc(exposures / "mic0_ODD.mrc", made.odd, pixel_size_angstrom=6)
    other = run(exposures / "mic0.mrc", linear, tmp_path / "other", halves=True)
    assert "with the sum of its halves" in other.files[0].message and other.exit_code == 4
    assert not list((tmp_path / "other").glob("*.mrc"))


def test_the_half_of_another_exposure_is_refused_whatever_is_accepted(
    exposures: Path, linear: Path, tmp_path: Path
) -> None:
    for name in ("mic0.mrc", "mic1.mrc"):
        (exposures / name).unlink()
    (exposures / "mic0_ODD.mrc").rename(exposures / "swapped")
    (exposures / "mic1_ODD.mrc").rename(exposures / "mic0_ODD.mrc")
    (exposures / "swapped").rename(exposures / "mic1_ODD.mrc")
    result = run(exposures, linear, tmp_path / "out", halves=True)
    assert "accepted without proof" in result.files[0].message, "nothing is known yet of the other one"
    assert result.files[1].status == "failed" and result.exit_code == 3
    assert "mic1_EVN.mrc shows what" in result.files[1].message and "mic0_ODD.mrc shows" in result.files[1].message


def test_halves_of_unequal_noise_are_refused(exposures: Path, linear: Path, tmp_path: Path) -> None:
    made = simulate_micrograph(SETTINGS, 0)
    noisier = made.odd + np.random.default_rng(0).normal(0, made.odd.std(), made.odd.shape).astype(np.float32)
    write_mrc(exposures / "mic0_ODD.mrc", noisier, pixel_size_angstrom=6)
    result = run(exposures / "mic0.mrc", linear, tmp_path / "out", halves=True)
    assert "times the variance of the odd one's" in result.files[0].message and result.exit_code == 4


def test_a_missing_half_fails_its_exposure_alone(exposures: Path, linear: Path, tmp_path: Path) -> None:
    (exposures / "mic1_ODD.mrc").unlink()
    for _ in range(2):
        result = run(f"{exposures}/mic?.mrc", linear, tmp_path / "out", halves=True, star=tmp_path / "out.star")
        done, failed = result.files
        assert done.status in ("done", "skipped") and failed.status == "failed" and result.exit_code == 3
        assert failed.input.name == "mic1.mrc" and "no mic1_ODD.mrc beside it. Add what is missing" in failed.message
    assert "mic1" not in (tmp_path / "out.star").read_text()
    plan = rehearse(DenoiseRequest((f"{exposures}/mic?.mrc",), linear, tmp_path / "new", device="cpu", halves=True))
    assert [item.message for item in plan.files] == [failed.message]
    (exposures / "mic0_EVN.mrc").unlink()
    with pytest.raises(PairingError, match=r"2 of 2 have no halves: .*no mic0_EVN\.mrc beside it; .*no mic1_ODD\.mrc"):
        run(f"{exposures}/mic?.mrc", linear, tmp_path / "none", halves=True)
    assert not (tmp_path / "none").exists()


def test_a_second_run_skips_and_one_without_halves_is_another_thing(
    exposures: Path, linear: Path, tmp_path: Path
) -> None:
    run(f"{exposures}/mic?.mrc", linear, tmp_path / "out", halves=True)
    again = run(f"{exposures}/mic?.mrc", linear, tmp_path / "out", halves=True)
    assert [item.status for item in again.files] == ["skipped", "skipped"]
    plain = run(f"{exposures}/mic?.mrc", linear, tmp_path / "out")
    assert all("halves yes, now no" in item.message for item in plain.files)


def test_another_grid_strength_and_raw_high_frequencies_work_with_halves(
    exposures: Path, linear: Path, tmp_path: Path
) -> None:
    fields = {"angpix": 9.0, "strength": 0.5, "merge_highres": 30.0}
    run(exposures / "mic0.mrc", linear, tmp_path / "plain", **fields)
    run(exposures / "mic0.mrc", linear, tmp_path / "halves", halves=True, **fields)
    one, two = (pixels(tmp_path / name / "mic0.mrc") for name in ("plain", "halves"))
    assert one.shape == two.shape == (192, 192)
    inner = (slice(24, -24), slice(24, -24))
    assert np.abs(one - two)[inner].max() < 0.05 * one.std()


def test_watching_for_halves_is_refused(linear: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--halves with --watch"):
        run(tmp_path, linear, tmp_path / "out", halves=True, watch=True)


def test_the_command_takes_it(
    exposures: Path, linear: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["denoise", str(exposures), "--halves", "--checkpoint", str(linear), "-o", str(tmp_path / "out"), "--json"]
    assert command_line([*words, "--device", "cpu"]) == 0
    records = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [Path(record["output"]).name for record in records] == ["mic0.mrc", "mic1.mrc"]


def test_particles_near_nyquist_of_coarse_pixels_are_no_fixed_pattern(
    exposures: Path, linear: Path, tmp_path: Path
) -> None:
    settings = SimulationSettings(size_px=384, pixel_size_angstrom=10, ice_grain_rad=0.04)
    made = simulate_micrograph(settings, 0)
    for written, told in ((10.0, False), (1.0, True)):
        for ending, image in (("_EVN", made.even), ("_ODD", made.odd)):
            write_mrc(exposures / f"coarse{ending}.mrc", image, pixel_size_angstrom=written)
        result = run(exposures / "coarse_EVN.mrc", linear, tmp_path / f"{written}", halves=True)
        assert ("fixed pattern" in result.files[0].message) is told


def test_halves_are_denoised_alike_wherever_they_are(exposures: Path, linear: Path, tmp_path: Path) -> None:
    beside = tmp_path / "beside"
    run(exposures, linear, beside, halves=True)
    moved = tmp_path / "warp" / "average"
    for name in (item.name for item in exposures.iterdir()):
        side = {"EVN": "even", "ODD": "odd"}.get(name.removesuffix(".mrc").split("_")[-1])
        place = moved / (side or "") / f"{name[:4]}.mrc"
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(exposures / name, place)
    folders = [("found", {}, (str(moved),)), ("named", {}, (f"{moved}/*.mrc",)), ("alone", {}, ())]
    sides = {"even": (str(moved / "even"),), "odd": (str(moved / "odd"),)}
    for name, fields, inputs in folders:
        fields = {} if name == "found" else sides
        request = DenoiseRequest(inputs, linear, tmp_path / name, device="cpu", threads=1, halves=True, **fields)
        result = denoise(request)
        assert [item.status for item in result.files] == ["done", "done"]
        for index in range(2):
            found, expected = (pixels(tmp_path / folder / f"mic{index}.mrc") for folder in (name, "beside"))
            # Without the micrograph itself the sum of the halves stands for it.
            np.testing.assert_allclose(
                found[INNER], expected[INNER], atol=(0.02 if name == "alone" else 0) * expected.std()
            )


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"even": ("e",), "halves": True}, "--even and --odd belong together"),
        ({"even": ("e",), "odd": ("o",)}, "--even and --odd belong to --halves"),
        ({"halves": True, "inputs": ()}, r"no input \(allowed: .* or --halves with --even and --odd\)"),
    ],
)
def test_sides_that_make_no_sense_are_refused(fields: dict[str, object], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        DenoiseRequest(**{"inputs": ("a.mrc",), "checkpoint": Path("c"), "output": Path("o"), **fields})  # type: ignore[arg-type]


def test_the_halves_that_are_used_are_not_said_to_be_left_out(exposures: Path, linear: Path, tmp_path: Path) -> None:
    shutil.copy(exposures / "mic0.mrc", exposures / "mic0_PS.mrc")
    told: list[str] = []
    denoise(
        DenoiseRequest((str(exposures),), linear, tmp_path / "out", device="cpu", threads=1, halves=True),
        note=told.append,
    )
    assert [text.split(";")[0] for text in told] == ["1 file that only accompanies a micrograph is left out (_PS 1)"]
