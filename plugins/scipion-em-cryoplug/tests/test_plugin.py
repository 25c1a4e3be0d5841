"""Scipion finds the plugin, its protocols, viewers and wizards; without cryoplug it says what to do."""

from __future__ import annotations

import functools
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from scipion_here import Denoise, Domain, Evaluate, Plugin, Session, Train

import cryoplug_scipion
from cryoplug_scipion.objects import CryoplugEvaluation, CryoplugModel
from cryoplug_scipion.program import CryoplugError, Program
from cryoplug_scipion.protocols.preview import preview
from cryoplug_scipion.viewers import CryoplugPreviewsViewer, CryoplugViewer, PageView
from cryoplug_scipion.wizards import CryoplugCheckpointWizard, CryoplugPreviewWizard, checkpoints

PACKAGE = Path(cryoplug_scipion.__file__).parent
ASK_FORMS = """
import json, sys
import pwem
from pwem import Domain
kinds = [Domain.getProtocols()[f"CryoplugProt{name}"] for name in ("Denoise", "Train", "Evaluate")]
shown = {kind.__name__: [len(list(kind().getDefinition().iterParams())), kind().validate()] for kind in kinds}
print("ANSWER" + json.dumps({"forms": shown, "modules": sorted(sys.modules)}))
"""


@functools.lru_cache(maxsize=None)
def _ask(program: str = "") -> dict[str, Any]:
    """Open the three forms in a process of its own."""
    words = [sys.executable, "-W", "ignore", "-c", ASK_FORMS]
    done = subprocess.run(
        words, env={**os.environ, "CRYOPLUG_BIN": program}, text=True, capture_output=True, check=True
    )
    return json.loads(next(line for line in done.stdout.splitlines() if line.startswith("ANSWER"))[6:])


def test_scipion_lists_the_protocols_and_their_place_in_the_tree() -> None:
    done = subprocess.run(["scipion", "protocols"], text=True, capture_output=True, check=True)
    listed = [line.split()[1] for line in done.stdout.splitlines() if line.startswith("cryoplug_scipion")]
    kinds = [kind.__name__ for kind in (Denoise, Evaluate, Train)]
    assert sorted(listed) == kinds
    tree = (PACKAGE / "protocols.conf").read_text()
    assert all(f'"value": "{name}"' in tree for name in kinds)


def test_neither_torch_nor_cryoplug_is_imported_into_scipion() -> None:
    imported = {name.split(".")[0] for name in _ask()["modules"]}
    assert "cryoplug_scipion" in imported
    assert not imported & {"torch", "cryoplug"}


def test_without_cryoplug_forms_open_and_the_sentence_says_what_to_do() -> None:
    with_it, without = _ask()["forms"], _ask("/nowhere/bin/cryoplug")["forms"]
    for name, (count, errors) in without.items():
        assert count == with_it[name][0], "the form is another one without the program"
        found = next(error for error in errors if "cryoplug was not found" in error)
        assert found.startswith("cryoplug was not found at /nowhere/bin/cryoplug.")
        assert all(variable in found for variable in ("CRYOPLUG_HOME", "CRYOPLUG_BIN", "CRYOPLUG_ENV_ACTIVATION"))
        assert not any("cryoplug was not found" in error for error in with_it[name][1])


def test_an_activation_command_comes_first_and_may_speak() -> None:
    folder = Path(Plugin.program().executable).parent
    program = Program("cryoplug", f'echo "hello from here"; export PATH="{folder}:$PATH"')
    assert program.answer("--version").splitlines()[-1].startswith("cryoplug ")
    talk: list[str] = []
    run = program.start(["merge", "/nowhere"], talk.append)
    while not run.has_ended:
        run.records(None)
    with pytest.raises(CryoplugError, match=r"cryoplug merge ended with exit code \d+: .*nowhere"):
        run.exit_code(allowed=[0])
    assert "hello from here" in talk


def test_an_activation_that_fails_says_so() -> None:
    with pytest.raises(CryoplugError, match="exit code 1"):
        Program("cryoplug", "false").answer("--version")


def test_a_worker_that_is_killed_alone_is_missed(tmp_path: Path) -> None:
    run = Plugin.program().start(
        ["denoise", str(tmp_path / "none.star"), "-o", str(tmp_path), "--watch"], lambda line: None
    )
    os.kill(run.pid, signal.SIGKILL)
    assert run.records(None) == []
    with pytest.raises(CryoplugError, match=r"ended by SIGKILL, often because memory ran out; Continue goes on"):
        run.exit_code(allowed=())


def test_version_of_the_program_is_that_of_the_plugin() -> None:
    assert Plugin.getActiveVersion() == cryoplug_scipion.__version__


def test_references_are_in_the_bibliography(session: Session) -> None:
    for kind, key in ((Denoise, "cryoplug"), (Train, "Lehtinen")):
        assert any(key in text for text in session.new(kind, {}).citations()), session.new(kind, {}).citations()


def test_viewer_shows_the_page_or_says_that_there_is_none(session: Session, tmp_path: Path) -> None:
    protocol = session.new(Denoise, {})
    protocol.setWorkingDir(str(tmp_path))
    for viewer in (CryoplugViewer, CryoplugPreviewsViewer):
        (view,) = viewer(project=session.project)._visualize(protocol)
        assert "is not there" in view.getMessage()
    (tmp_path / "extra" / "denoised" / "previews").mkdir(parents=True)
    Path(protocol.report()).write_text("<html>")
    (page,) = CryoplugViewer(project=session.project)._visualize(protocol)
    (pictures,) = CryoplugPreviewsViewer(project=session.project)._visualize(protocol)
    assert isinstance(page, PageView)
    assert (page.path, pictures.path) == (Path(protocol.report()), protocol.previews_folder())


def test_scipion_finds_viewers_and_wizards(session: Session) -> None:
    for kind in (Denoise, Train, Evaluate):
        assert CryoplugViewer in Domain.findViewers(session.new(kind, {}), "tkinter")
    assert CryoplugViewer in Domain.findViewers(CryoplugModel(), "tkinter")
    assert CryoplugViewer in Domain.findViewers(CryoplugEvaluation(), "tkinter")
    wizards = Domain.findWizards(session.new(Denoise, {}), "tkinter")
    assert wizards["checkpoint"] is CryoplugCheckpointWizard
    assert wizards["strength"] is CryoplugPreviewWizard
    assert Domain.findWizards(session.new(Train, {}), "tkinter")["init"] is CryoplugCheckpointWizard


def test_wizard_denoises_one_micrograph_without_running_the_protocol(session: Session, imported: Any) -> None:
    with pytest.raises(CryoplugError, match="choose input micrographs first"):
        preview(session.new(Denoise, {}))
    protocol = session.new(Denoise, {"inputMicrographs": (imported, "outputMicrographs")}, halves=True, previews=False)
    picture = preview(protocol)
    assert picture.read_bytes()[:3] == b"\xff\xd8\xff"
    assert checkpoints(session.project)[0] == "general"
