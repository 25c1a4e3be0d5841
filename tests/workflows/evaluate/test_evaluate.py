from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import starfile

from cryoplug.cli.main import run as command_line
from cryoplug.errors import PairingError, UsageError
from cryoplug.formats.mrc import write_mrc
from cryoplug.formats.registry import open_micrograph
from cryoplug.metrics.baselines import gaussian_blur
from cryoplug.models.checkpoint import Checkpoint, save_checkpoint
from cryoplug.models.registry import model_spec
from cryoplug.reports import evaluation_figures
from cryoplug.simulation.micrograph import SimulationSettings
from cryoplug.workflows.denoise import DenoiseRequest, denoise
from cryoplug.workflows.evaluate import EvaluateRequest, evaluate, workflow
from cryoplug.workflows.simulate import SimulateRequest, simulate

pytestmark = pytest.mark.usefixtures("no_pictures")
METHODS = ["denoised", "identity", "affine", "gaussian", "wiener"]


@pytest.fixture(scope="session")
def simulated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("simulated")
    simulate(SimulateRequest(folder, count=4, settings=SimulationSettings(size_px=384, pixel_size_angstrom=5.2)))
    return folder


@pytest.fixture(scope="session")
def pair(simulated: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two of them, for what does not depend on how many they are."""
    folder = tmp_path_factory.mktemp("pair")
    for side in ("noisy", "even", "odd", "clean"):
        (folder / side).mkdir()
        for name in ("mic_0001.mrc", "mic_0002.mrc"):
            shutil.copy(simulated / side / name, folder / side / name)
    return folder


@pytest.fixture(scope="session")
def blurring(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint that blurs like three 3x3 binomials: linear, so that its scores are known to be ordinary."""
    kernel = np.outer([1, 2, 1], [1, 2, 1]) / 16
    weights = {
        name: np.zeros(tensor.shape, np.float32)
        for name, tensor in model_spec("cryo_cnn").build(seed=0).state_dict().items()
    }
    # ReLU passes what the bias lifts above 0; the last layer takes it away again.
    weights["conv1.weight"][0, 0] = kernel
    weights["conv1.bias"][0] = 30
    weights["conv2.weight"][0, 0] = kernel
    weights["conv3.weight"][0, 0] = kernel
    weights["conv3.bias"][0] = -30
    folder = tmp_path_factory.mktemp("checkpoint") / "run"
    save_checkpoint(folder / "epoch_0001", Checkpoint("cryo_cnn", weights, normalize="zscore"), 0.5)
    return folder


def pixels(path: Path) -> np.ndarray:
    with open_micrograph(path) as source:
        return source.read_rows(0, source.shape[0])


def blurred_files(source: Path, target: Path, sigma: float = 1.5, pattern: str = "*.mrc") -> Path:
    target.mkdir()
    for path in sorted(source.glob(pattern)):
        write_mrc(target / path.name, gaussian_blur(pixels(path), sigma), pixel_size_angstrom=5.2)
    return target


def request(output: Path, **fields: object) -> EvaluateRequest:
    lists = ("inputs", "denoised", "denoised_odd", "clean", "even", "odd")
    plain = {name: (str(value),) if name in lists else value for name, value in fields.items()}
    return EvaluateRequest(output=output, **{"device": "cpu", "threads": 1, **plain})  # type: ignore[arg-type]


def test_a_checkpoint_is_judged_by_truth_and_halves_at_once_and_both_agree(simulated, blurring, tmp_path):
    shown: list[dict] = []
    result = evaluate(
        request(
            tmp_path / "out",
            checkpoint=blurring,
            inputs=simulated / "noisy",
            clean=simulated / "clean",
            even=simulated / "even",
            odd=simulated / "odd",
        ),
        show=shown.append,
    )
    assert result.exit_code == 0 and len(result.files) == len(shown) == 4
    summary = result.summary
    assert summary is not None and summary.truth is not None and summary.halves is not None
    assert list(summary.truth) == list(summary.halves) == METHODS
    assert abs(summary.agreement["deviation"]) < 0.05
    for record in shown:
        assert record["halves"]["directions"] == ("even", "odd")
        halves = record["halves"]["denoised"]
        assert halves.error == pytest.approx(halves.bias + halves.noise_left)
    # The halves' estimate of the SNR of a half lies below the true one of the sum, as half the dose must.
    assert summary.halves["gaussian"]["snr_fitted_db"].mean < summary.truth["gaussian"]["snr_db"].mean
    assert summary.truth["wiener"]["snr_db"].mean >= summary.truth["gaussian"]["snr_db"].mean
    noise = summary.hallucination["denoised"]
    assert noise["output_std"].mean < noise["noise_std"].mean and abs(noise["excess_kurtosis"].mean) < 0.2
    assert summary.seam is None or summary.seam.mean == pytest.approx(1, abs=0.2)


def test_the_outputs_are_complete_strict_json_and_pictures(pair, blurring, tmp_path, monkeypatch):
    monkeypatch.undo()  # with pictures
    result = evaluate(request(tmp_path / "out", checkpoint=blurring, even=pair / "even", odd=pair / "odd", tile=64))
    assert [path.name for path in result.outputs] == [
        "evaluation.json",
        "evaluation.txt",
        "evaluation.star",
        "curves.png",
        "panels.png",
    ]
    record = json.loads((tmp_path / "out" / "evaluation.json").read_text(), parse_constant=pytest.fail)
    assert record["model"] == "cryo_cnn" and record["normalize"] == "zscore"
    assert record["summary"]["truth"] is None and record["summary"]["micrographs"] == 2
    curves = record["micrographs"][0]["curves"]["halves"]
    assert len(curves["frequency"]) == len(curves["denoised"]["error"]) == len(curves["wiener"]["snr"]) == 192
    assert curves["frequency"][-1] == 0.5
    assert record["micrographs"][0]["seam"] == pytest.approx(1, abs=0.2)
    assert "judged by halves" in (tmp_path / "out" / "evaluation.txt").read_text()
    assert all(path.stat().st_size > 1000 for path in result.outputs[3:])
    table = starfile.read(tmp_path / "out" / "evaluation.star")
    assert list(table["rlnMicrographName"]) == [str(item["micrograph"]) for item in record["micrographs"]]
    for item, error in zip(record["micrographs"], table["cryoplugHalvesDenoisedError"], strict=True):
        assert error == pytest.approx(item["halves"]["denoised"]["error"], rel=1e-5)
    assert table["rlnMicrographPixelSize"].tolist() == [5.2] * 2


def test_denoised_files_score_as_the_same_pixels_do(simulated, tmp_path):
    # Not in folders named even and odd, where the second one would be found beside the first.
    made = blurred_files(simulated / "even", tmp_path / "one"), blurred_files(simulated / "odd", tmp_path / "other")
    both = evaluate(
        request(
            tmp_path / "both",
            denoised=made[0],
            denoised_odd=made[1],
            even=simulated / "even",
            odd=simulated / "odd",
            clean=simulated / "clean",
        )
    ).summary
    alone = evaluate(
        request(tmp_path / "alone", denoised=made[0], even=simulated / "even", odd=simulated / "odd")
    ).summary
    assert both is not None and alone is not None and both.halves and alone.halves
    assert np.isnan(alone.halves["denoised"]["bias"].mean) and np.isfinite(both.halves["denoised"]["bias"].mean)
    assert alone.halves["denoised"]["error"].mean == pytest.approx(both.halves["denoised"]["error"].mean, rel=0.05)
    assert abs(both.agreement["deviation"]) < 0.05 and alone.agreement is None
    assert alone.hallucination is None and alone.truth is None
    gaussian, denoised = (both.halves[name]["snr_fitted_db"].mean for name in ("gaussian", "denoised"))
    assert gaussian - 0.5 < denoised <= gaussian + 0.02


def test_denoised_files_of_the_inputs_are_judged_by_the_truth(pair, tmp_path):
    made = blurred_files(pair / "noisy", tmp_path / "made")
    summary = evaluate(
        request(tmp_path / "out", denoised=made, inputs=pair / "noisy", clean=pair / "clean", tile=128)
    ).summary
    assert summary is not None and summary.truth and summary.halves is None
    assert summary.truth["denoised"]["snr_db"].mean > summary.truth["identity"]["snr_db"].mean
    assert summary.seam.mean == pytest.approx(1, abs=0.2)


def test_halves_beside_the_inputs_are_found(simulated, blurring, tmp_path):
    for side, ending in (("noisy", ""), ("even", "_EVN"), ("odd", "_ODD")):
        for path in (simulated / side).glob("mic_000[12].mrc"):
            shutil.copy(path, tmp_path / f"{path.stem}{ending}.mrc")
    result = evaluate(request(tmp_path / "out", checkpoint=blurring, inputs=tmp_path / "mic_????.mrc"))
    assert result.summary.micrographs == 2 and result.summary.halves is not None
    halves = evaluate(request(tmp_path / "two", checkpoint=blurring, inputs=tmp_path / "*_EVN.mrc"))
    assert halves.summary.halves["denoised"]["error"] == result.summary.halves["denoised"]["error"]
    (tmp_path / "mic_0001_ODD.mrc").unlink()
    partly = evaluate(request(tmp_path / "part", checkpoint=blurring, inputs=tmp_path / "mic_????.mrc"))
    assert [item.status for item in partly.files] == ["done", "failed"] and partly.exit_code == 3
    assert "mic_0001.mrc: no mic_0001_ODD.mrc beside it" in partly.files[1].message


@pytest.mark.parametrize(("sigma", "code"), [(8.0, 1), (1.0, 0)])
def test_the_exit_code_tells_whether_the_requirement_is_met(pair, tmp_path, sigma, code):
    made = blurred_files(pair / "noisy", tmp_path / "made", sigma)
    result = evaluate(
        request(
            tmp_path / "out",
            denoised=made,
            inputs=pair / "noisy",
            clean=pair / "clean",
            require_better_than="identity",
        )
    )
    assert result.exit_code == code
    assert result.summary.requirement.met is (code == 0)
    assert ("NOT better than identity" in (tmp_path / "out" / "evaluation.txt").read_text()) is (code == 1)


def test_no_denoiser_is_better_than_itself(pair, tmp_path):
    result = evaluate(
        request(
            tmp_path / "out",
            denoised=blurred_files(pair / "even", tmp_path / "copies", sigma=0),
            even=pair / "even",
            odd=pair / "odd",
            require_better_than="identity",
        )
    )
    assert result.exit_code == 1
    assert result.summary.requirement.difference.mean == pytest.approx(0, abs=1e-6)


def test_one_bad_micrograph_fails_alone(simulated, blurring, tmp_path):
    for side in ("even", "odd"):
        shutil.copytree(simulated / side, tmp_path / side)
    bad = pixels(tmp_path / "odd" / "mic_0002.mrc")
    bad[3, 4] = np.nan
    write_mrc(tmp_path / "odd" / "mic_0002.mrc", bad, pixel_size_angstrom=5.2)
    write_mrc(tmp_path / "odd" / "mic_0003.mrc", bad[:100], pixel_size_angstrom=5.2)
    result = evaluate(request(tmp_path / "out", checkpoint=blurring, even=tmp_path / "even", odd=tmp_path / "odd"))
    assert [item.status for item in result.files] == ["done", "failed", "failed", "done"]
    assert "NaN" in result.files[1].message and "shape (100, 384)" in result.files[2].message
    assert result.exit_code == 3 and result.summary.micrographs == 2


def test_halves_of_different_exposures_are_refused(simulated, blurring, tmp_path):
    for name, odd in (("a", "0001"), ("b", "0003")):
        shutil.copy(simulated / "even" / "mic_0001.mrc", tmp_path / f"{name}_EVN.mrc")
        shutil.copy(simulated / "odd" / f"mic_{odd}.mrc", tmp_path / f"{name}_ODD.mrc")
    result = evaluate(request(tmp_path / "out", checkpoint=blurring, inputs=tmp_path / "*_EVN.mrc"))
    assert [item.status for item in result.files] == ["done", "failed"]
    assert "do not belong together" in result.files[1].message


def test_a_truth_that_is_upside_down_or_of_another_exposure_is_told(simulated, blurring, tmp_path):
    truth = tmp_path / "mic_0001.mrc"
    for number, turn, said in (
        ("0001", 1, ""),
        ("0001", -1, "upside down; turn it"),
        ("0002", 1, "shares little with it"),
    ):
        write_mrc(truth, pixels(simulated / "clean" / f"mic_{number}.mrc")[::turn].copy(), pixel_size_angstrom=5.2)
        asked = request(
            tmp_path / "e",
            inputs=simulated / "noisy" / "mic_0001.mrc",
            clean=truth,
            checkpoint=blurring,
            overwrite=True,
        )
        (result,) = evaluate(asked).files
        assert result.status == "done"
        assert said in result.message if said else "truth" not in result.message


def test_a_micrograph_given_as_its_own_truth_fails_and_says_so(simulated, blurring, tmp_path):
    noisy, truth = simulated / "noisy" / "mic_0001.mrc", tmp_path / "mic_0001.mrc"
    shutil.copy(noisy, truth)
    result = evaluate(request(tmp_path / "e", inputs=noisy, clean=truth, checkpoint=blurring))
    assert [item.status for item in result.files] == ["failed"]
    assert "has the same pixels as its truth" in result.files[0].message


def test_raw_files_given_as_denoised_are_refused(pair, tmp_path):
    even, odd = pair / "even", pair / "odd"
    with pytest.raises(PairingError, match="as raw and as denoised"):
        evaluate(request(tmp_path / "out", denoised=even, even=even, odd=odd))


def test_without_truth_and_halves_there_is_nothing_to_judge_by(simulated, blurring, tmp_path):
    # Elsewhere, because the folders even and odd beside simulated/noisy are found.
    shutil.copytree(simulated / "noisy", tmp_path / "noisy")
    with pytest.raises(PairingError, match="nothing to judge by"):
        evaluate(request(tmp_path / "out", checkpoint=blurring, inputs=tmp_path / "noisy"))


def test_an_earlier_evaluation_is_kept_unless_overwriting_is_asked_for(simulated, blurring, tmp_path):
    fields = {"checkpoint": blurring, "even": simulated / "even" / "mic_0001.mrc"}
    fields["odd"] = simulated / "odd" / "mic_0001.mrc"
    evaluate(request(tmp_path / "out", **fields))
    with pytest.raises(UsageError, match="--overwrite"):
        evaluate(request(tmp_path / "out", **fields))
    assert evaluate(request(tmp_path / "out", **fields, overwrite=True)).exit_code == 0


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"inputs": "a", "checkpoint": Path("c"), "denoised": "d"}, "either --checkpoint or --denoised"),
        ({"checkpoint": Path("c"), "even": "a"}, "--even and --odd belong together"),
        ({"checkpoint": Path("c")}, "no input"),
        ({"checkpoint": Path("c"), "inputs": "a", "require_better_than": "luck"}, "allowed: identity, affine"),
        ({"checkpoint": Path("c"), "inputs": "a", "denoised_odd": "b"}, "--denoised-odd belongs to --denoised"),
        ({"checkpoint": Path("c"), "inputs": "a", "direction": "up", "tile": -1}, "--direction.*--tile"),
    ],
)
def test_a_request_that_contradicts_itself_is_refused(tmp_path, fields, message):
    with pytest.raises(UsageError, match=message):
        request(tmp_path, **fields)


def test_without_matplotlib_the_figures_alone_are_missing(simulated, tmp_path, monkeypatch):

    def missing(*_: object) -> None:
        raise UsageError("figures need matplotlib")

    monkeypatch.setattr(evaluation_figures, "evaluation_curves", missing)
    notes: list[str] = []
    even, odd = simulated / "even" / "mic_0001.mrc", simulated / "odd" / "mic_0001.mrc"
    made = blurred_files(simulated / "even", tmp_path / "made", pattern="mic_0001.mrc")
    result = evaluate(request(tmp_path / "out", denoised=made, even=even, odd=odd), note=notes.append)
    assert [path.name for path in result.outputs] == [workflow.JSON_NAME, workflow.TEXT_NAME, workflow.STAR_NAME]
    assert notes == ["figures need matplotlib"]


def test_the_command_prints_one_record_a_micrograph_and_the_means(pair, blurring, tmp_path, capsys):
    even, odd = pair / "even", pair / "odd"
    arguments = ["--checkpoint", blurring, "--even", even, "--odd", odd, "--device", "cpu"]
    code = command_line(list(map(str, ["evaluate", *arguments, "-o", tmp_path / "out", "--json"])))
    out = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert code == 0 and len(out) == 3
    assert [Path(record["micrograph"]).name for record in out[:2]] == [f"mic_000{n}.mrc" for n in range(1, 3)]
    assert set(METHODS) <= set(out[0]["halves"]) and out[0]["truth"] is None
    error = out[2]["summary"]["halves"]["gaussian"]["error"]
    assert error["mean"] == pytest.approx(np.mean([record["halves"]["gaussian"]["error"] for record in out[:2]]))
    assert error["count"] == 2 and error["standard_error"] > 0


def test_the_command_prints_a_table_and_exits_with_one_when_it_is_not_better(pair, tmp_path, capsys):
    even, odd = pair / "even", pair / "odd"
    made = blurred_files(even, tmp_path / "made", sigma=0)
    arguments = ["evaluate", "--denoised", made, "--even", even, "--odd", odd, "-o", tmp_path / "out"]
    assert command_line([*map(str, arguments), "--require-better-than", "gaussian"]) == 1
    out = capsys.readouterr().out
    lines = out.splitlines()
    assert "WORSE than the best Gaussian" in lines[0]
    table = lines.index("", 1)
    assert [line.split()[0] for line in lines[table + 3 : table + 8]] == METHODS
    assert "NOT better than gaussian" in out


def test_on_real_halves_the_best_gaussian_multiplies_the_correlation_about_threefold(shared_data, tmp_path):
    folder = shared_data / "halves_apoferritin"
    made = blurred_files(folder, tmp_path / "made", sigma=0, pattern="*_EVN.mrc")
    result = evaluate(request(tmp_path / "out", denoised=made, inputs=f"{folder}/*_EVN.mrc"))
    found = result.summary.halves["gaussian"]
    assert result.summary.micrographs == 4
    # 3.02 +- 0.13: corr(blur(EVN), ODD) / corr(EVN, ODD), mean over four micrographs, each with its own best width.
    assert abs(found["correlation_multiple"].mean - 2.81) < 2 * found["correlation_multiple"].standard_error
    assert found["residual_correlation"].mean > 0
    assert result.summary.halves["denoised"]["correlation_multiple"].mean == pytest.approx(1)


def test_a_remark_of_the_denoiser_is_said_once_a_micrograph_although_it_denoises_many_images(pair, blurring, tmp_path):
    asked = request(tmp_path / "out", inputs=pair / "noisy", clean=pair / "clean", checkpoint=blurring, angpix=2.6)
    assert [file.message.count("coarser than the 2.6 A") for file in evaluate(asked).files] == [1, 1]


def test_a_denoised_file_as_input_or_as_half_is_told_and_as_the_result_it_is_not(pair, blurring, tmp_path):
    for side in ("noisy", "even", "odd"):
        request = DenoiseRequest(
            (f"{pair}/{side}/mic_0001.mrc",), blurring, tmp_path / side, device="cpu", previews=False
        )
        assert denoise(request).exit_code == 0
    name, clean = "mic_0001.mrc", (f"{pair}/clean/mic_0001.mrc",)

    def said(*inputs: str, **named: object) -> str:
        return evaluate(EvaluateRequest(tmp_path / "e", inputs, overwrite=True, **named)).files[0].message

    assert "give it with --denoised" in said(f"{tmp_path}/noisy/{name}", clean=clean, checkpoint=blurring)
    halves = {side: (f"{tmp_path}/{side}/{name}",) for side in ("even", "odd")}
    assert "give it with --denoised" in said(**halves, checkpoint=blurring)
    assert "--denoised" not in said(f"{pair}/noisy/{name}", clean=clean, denoised=(f"{tmp_path}/noisy/{name}",))


@pytest.mark.parametrize(("target", "compared"), [("image", True), ("particles", False)])
def test_the_error_of_halves_is_not_compared_with_that_of_particles_which_have_no_ice(pair, tmp_path, target, compared):
    config = {"depth": 1, "width": 4, "outputs": 2, "skip": "none"}
    state = model_spec("unet").build(config=config).state_dict()
    weights = {
        name: np.random.default_rng(1).normal(0, 0.2, tensor.shape).astype(np.float32) for name, tensor in state.items()
    }
    checkpoint = Checkpoint("unet", weights, config=config, normalize="zscore")
    save_checkpoint(tmp_path / "run" / "epoch_0001", checkpoint, 0.5)
    sides = {side: pair / side for side in ("even", "odd", "clean")}
    result = evaluate(
        request(tmp_path / "out", checkpoint=tmp_path / "run", inputs=pair / "noisy", target=target, **sides)
    )
    assert result.summary is not None and bool(result.summary.agreement) == compared
    assert ("error of the halves" in (tmp_path / "out" / "evaluation.txt").read_text()) == compared
