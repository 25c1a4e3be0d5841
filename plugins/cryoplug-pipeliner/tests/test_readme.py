"""What the README shows works as it stands there: on the command line, then in Python, then on the command line again."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from pipeliner.api.manage_project import PipelinerProject
from pipeliner.project_graph import ProjectGraph
from pipeliner_project import SCRIPTS

README = Path(__file__).resolve().parents[1] / "README.md"
INSTALL = README.with_name("install.sh")


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", README.read_text(), flags=re.MULTILINE | re.DOTALL)


def run(command: list[str], folder: Path) -> None:
    done = subprocess.run(
        command,
        cwd=folder,
        env={"PATH": f"{SCRIPTS}:/usr/bin:/bin", "OMP_NUM_THREADS": "1", "HOME": str(folder)},
        text=True,
        capture_output=True,
        timeout=400,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_page_from_top_to_bottom(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    denoise, go_on = blocks("sh")
    (python,) = blocks("python")
    project = tmp_path / "project"
    run(["bash", "-euc", denoise], tmp_path)
    run([sys.executable, "-c", python], project)
    run(["bash", "-euc", go_on], project)
    monkeypatch.chdir(project)
    with ProjectGraph(read_only=False) as pipeline:
        pipeline.check_process_completion()
        assert {process.name: process.status for process in pipeline.process_list} == {
            "CryoplugDenoise/job001/": "Succeeded",
            "CryoplugTrain/job002/": "Succeeded",
            "CryoplugEvaluate/job003/": "Succeeded",
            "CryoplugDenoise/job004/": "Succeeded",
        }
        types = {node.name: node.type for node in pipeline.node_list}
    assert types["CryoplugTrain/job002/model.json"] == "MlModel.json.cryoplug"
    assert types["CryoplugEvaluate/job003/evaluation.json"] == "EvaluationMetric.json.cryoplug"
    assert types["CryoplugEvaluate/job003/evaluation.star"] == "EvaluationMetric.star.cryoplug.micrographs"

    train, evaluate = (shown(name) for name in ("CryoplugTrain/job002/", "CryoplugEvaluate/job003/"))
    assert [item["dobj_type"] for item in train] == ["text", "graph", "table", "html", "pdffile"]
    assert [item["dobj_type"] for item in evaluate] == ["text", "table", "image", "image", "html"]
    graph, table = train[1], evaluate[1]
    assert graph["xvalues"] == [[1, 2], [1, 2]] and graph["data_series_labels"] == ["training", "validation"]
    assert table["headers"][0] == "method" and table["table_data"][0][0] == "denoised"
    assert all(Path(item["image_path"]).read_bytes().startswith(b"\x89PNG") for item in evaluate[2:4])

    metadata = PipelinerProject().get_job("CryoplugTrain/job002/").gather_metadata()
    judged = PipelinerProject().get_job("CryoplugEvaluate/job003/").gather_metadata()
    assert metadata["Network"]["sha256"] == judged["Denoiser"]["checkpoint_sha256"]
    assert judged["Evaluation"]["halves"]["snr_fitted_db"] is not None


def shown(job: str) -> list[dict[str, object]]:
    PipelinerProject().get_job(job).save_results_display_files()
    return [json.loads(path.read_text()) for path in sorted(Path(job).glob(".results_display*.json"))]


def test_both_ways_to_install_take_the_same_folders() -> None:
    def folders(text: str) -> set[str]:
        (line,) = re.findall(r"install (?!torch)(.*plugins/cryoplug-relion.*)", text)
        return {word.strip('"').removesuffix("[test]") for word in line.split() if word.strip('"').startswith(".")}

    assert folders(README.read_text()) == folders(INSTALL.read_text()) >= {".", "./plugins/cryoplug-pipeliner"}
