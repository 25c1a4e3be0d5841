"""Train on halves as motion correction in Scipion writes them, denoise with the model, and evaluate it."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from scipion_here import Denoise, Evaluate, Session, Train, contents

from cryoplug_scipion.program import CryoplugError

QUICK = {"model": "unet", "model_option": "depth=2 width=8", "epochs": 1, "max_batches": 2, "batch_size": 2}


@pytest.fixture(scope="module")
def trained(session: Session, halves: tuple[Any, str, str]) -> Any:
    protocol, even, odd = halves
    return session.run(Train, {"inputEven": (protocol, even), "inputOdd": (protocol, odd)}, **QUICK)


def test_training_on_halves_gives_a_model_and_a_verdict(trained: Any) -> None:
    assert trained.isFinished(), trained.getErrorMessage()
    folder = Path(trained.outputModel.getPath())
    assert len(list(folder.glob("epoch_*/checkpoint.json"))) == 1
    assert "than the raw micrograph" in trained.outputModel.getVerdict()
    assert trained.summary()[0] == f"The model is in {folder}."
    assert Path(trained.report()).is_file()
    assert any("Lehtinen" in text for text in trained.citations())
    listed = Path(trained._getExtraPath("training.star")).read_text()
    assert listed.count("_EVN.mrc") == 2 * listed.count("_ODD.mrc") == 8
    rows = [re.findall(r'"([^"]+)"', line) for line in listed.splitlines() if "_EVN" in line]
    assert [odd for _, _, odd in rows] == [even.replace("EVN", "ODD") for _, even, _ in rows], "pairs of two exposures"


def test_continue_with_more_epochs_goes_on(trained: Any, session: Session) -> None:
    trained.epochs.set(2)
    session.go_on(trained)
    assert trained.isFinished(), trained.getErrorMessage()
    metrics = (Path(trained.outputModel.getPath()) / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["epoch"] for line in metrics] == [1, 2]
    assert Path(trained.getStdoutLog()).read_text().count("cryoplug convert ") <= 1, "the store was packed twice"


def test_the_model_denoises(trained: Any, imported: Any, session: Session) -> None:
    inputs = {"inputMicrographs": (imported, "outputMicrographs"), "inputModel": (trained, "outputModel")}
    protocol = session.run(Denoise, inputs)
    assert protocol.isFinished(), protocol.getErrorMessage()
    assert len(contents(protocol)[0]) == 4
    assert protocol.summary() == [f"4 micrographs denoised with {trained.outputModel.getPath()}."]


def test_the_general_model_is_judged_by_halves(session: Session, halves: tuple[Any, str, str]) -> None:
    protocol, even, odd = halves
    evaluation = session.run(Evaluate, {"inputEven": (protocol, even), "inputOdd": (protocol, odd)})
    assert evaluation.isFinished(), evaluation.getErrorMessage()
    result = evaluation.outputEvaluation
    assert result.getGainOverRaw() > 3
    assert "than the raw micrograph" in evaluation.summary()[0]
    assert Path(evaluation.report()).is_file()


def test_the_general_model_is_judged_by_the_truth(
    session: Session, simulated: Path, imported: Any, tmp_path: Path
) -> None:
    for path in (simulated / "clean").glob("*.mrc"):
        (tmp_path / path.name.replace("_", "")).symlink_to(path)
    truth = session.import_(tmp_path)
    inputs = {"inputMicrographs": (imported, "outputMicrographs"), "inputTruth": (truth, "outputMicrographs")}
    evaluation = session.run(Evaluate, inputs, judge=1)
    assert evaluation.isFinished(), evaluation.getErrorMessage()
    assert evaluation.outputEvaluation.getGainOverRaw() > 3
    assert "truth" in evaluation.summary()[0]


def test_names_that_do_not_agree_are_refused_in_a_sentence(session: Session, imported: Any) -> None:
    evaluation = session.new(Evaluate, {})
    with pytest.raises(CryoplugError, match="the names of the micrographs in the two sets do not agree"):
        evaluation._listed("halves", [], imported)


def test_training_on_micrographs_alone(session: Session, imported: Any) -> None:
    protocol = session.run(
        Train, {"inputMicrographs": (imported, "outputMicrographs")}, pairs=1, accept_unproven=True, **QUICK
    )
    assert protocol.isFinished(), protocol.getErrorMessage()
    assert len(list(Path(protocol.outputModel.getPath()).glob("epoch_*/checkpoint.json"))) == 1
    assert "--pairs single" in Path(protocol.getStdoutLog()).read_text()
