"""The denoise protocol on a set that is complete: what it gives, and how it fails."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import mrcfile
import numpy as np
import pytest
from pwem.constants import RELATION_CTF
from pwem.objects import CTFModel
from scipion_here import Denoise, Session, contents

NAMES = [f"mic000{number}.mrc" for number in range(1, 5)]


@pytest.fixture(scope="module")
def with_ctf(imported: Any) -> Any:
    """The import protocol, with an estimated CTF for its micrographs."""
    ctfs = imported._createSetOfCTF()
    ctfs.setMicrographs(imported.outputMicrographs)
    for micrograph in imported.outputMicrographs:
        ctf = CTFModel(defocusU=10000.0, defocusV=10000.0, defocusAngle=0.0)
        ctf.setMicrograph(micrograph)
        ctf.copyObjId(micrograph)
        ctfs.append(ctf)
    imported._defineOutputs(outputCTF=ctfs)
    imported._defineCtfRelation(imported.outputMicrographs, ctfs)
    imported._store()
    return imported


@pytest.fixture(scope="module")
def denoised(session: Session, with_ctf: Any) -> Any:
    return session.run(Denoise, {"inputMicrographs": (with_ctf, "outputMicrographs")})


def test_micrographs_keep_numbers_names_and_pixel_size(denoised: Any, imported: Any) -> None:
    assert denoised.isFinished(), denoised.getErrorMessage()
    before, _ = contents(imported)
    after, is_open = contents(denoised)
    assert not is_open
    assert [(item.getObjId(), item.getMicName()) for item in after] == [
        (item.getObjId(), item.getMicName()) for item in before
    ]
    assert denoised.outputMicrographs.getSamplingRate() == pytest.approx(2.6)
    assert denoised.outputMicrographs.getAcquisition().getVoltage() == pytest.approx(300)
    for one, other in zip(before, after):
        assert other.getSamplingRate() == pytest.approx(2.6)
        with mrcfile.open(one.getFileName()) as raw, mrcfile.open(other.getFileName()) as clean:
            assert raw.data.shape == clean.data.shape
            assert 0.01 < np.std(clean.data) < 0.9 * np.std(raw.data)


def test_ctf_of_the_raw_micrographs_is_that_of_the_denoised_ones(
    denoised: Any, with_ctf: Any, session: Session
) -> None:
    found = session.project.getRelatedObjects(RELATION_CTF, denoised.outputMicrographs, refresh=True)
    assert [pointer.get().getObjId() for pointer in found] == [with_ctf.outputCTF.getObjId()]


def test_summary_methods_and_citations_speak(denoised: Any) -> None:
    assert denoised.summary() == ["4 micrographs denoised with general."]
    assert "4 micrographs were denoised" in denoised._methods()[0]
    assert any("cryoplug" in text for text in denoised.citations())


def _times(protocol: Any) -> dict[str, int]:
    return {item.getFileName(): Path(item.getFileName()).stat().st_mtime_ns for item in contents(protocol)[0]}


def test_continue_with_other_options_is_refused_and_without_news_adds_nothing(denoised: Any, session: Session) -> None:
    before = _times(denoised)
    denoised.strength.set(0.5)
    session.go_on(denoised)
    assert denoised.isFailed()
    assert "was made with strength 1, now 0.5" in denoised.getErrorMessage()
    assert "restart the protocol, or put the options back" in denoised.getErrorMessage()
    denoised.strength.set(1.0)
    session.go_on(denoised)
    assert denoised.isFinished()
    assert _times(denoised) == before
    assert len(before) == 4


def test_broken_micrographs_are_named_and_left_out_and_a_coarser_grid_has_its_pixel_size(
    session: Session, raw: Path, tmp_path: Path
) -> None:
    shutil.copytree(raw, tmp_path / "some")
    imported = session.import_(tmp_path / "some")
    broken = Path(contents(imported)[0][1].getFileName()).resolve()
    broken.write_bytes(broken.read_bytes()[:3000])
    protocol = session.run(Denoise, {"inputMicrographs": (imported, "outputMicrographs")}, output_angpix=5.2)
    assert protocol.isFinished(), protocol.getErrorMessage()
    assert [item.getMicName() for item in contents(protocol)[0]] == [NAMES[0], *NAMES[2:]]
    assert protocol.outputMicrographs.getSamplingRate() == pytest.approx(5.2)
    assert protocol.outputMicrographs.getDim()[0] == 128
    summary = protocol.summary()
    assert summary[:2] == ["3 micrographs denoised with general.", "1 failed:"]
    assert "mic0002.mrc" in summary[2]


def test_no_usable_micrograph_fails_in_a_sentence(session: Session, raw: Path, tmp_path: Path) -> None:
    (tmp_path / "one").mkdir()
    shutil.copy(next(iter(sorted(raw.glob("*.mrc")))), tmp_path / "one")
    imported = session.import_(tmp_path / "one")
    next(iter((tmp_path / "one").iterdir())).write_bytes(b"nothing of the kind")
    protocol = session.run(Denoise, {"inputMicrographs": (imported, "outputMicrographs")})
    assert protocol.isFailed()
    assert "cryoplug denoise ended with exit code 4" in protocol.getErrorMessage()
    assert "mic0001.mrc" in protocol.getErrorMessage()


def test_a_wrong_option_fails_with_the_sentence_of_cryoplug(session: Session, imported: Any) -> None:
    protocol = session.run(Denoise, {"inputMicrographs": (imported, "outputMicrographs")}, strength=7.0)
    assert protocol.isFailed()
    assert "--strength 7.0 (allowed: 0 for raw to 1 for denoised)" in protocol.getErrorMessage()


def test_halves_are_denoised_with_their_sum(session: Session, imported: Any, halves: tuple[Any, str, str]) -> None:
    protocol, even, odd = halves
    inputs = {
        "inputMicrographs": (imported, "outputMicrographs"),
        "inputEven": (protocol, even),
        "inputOdd": (protocol, odd),
    }
    denoised = session.run(Denoise, inputs, halves=True)
    assert denoised.isFinished(), denoised.getErrorMessage()
    assert [item.getMicName() for item in contents(denoised)[0]] == NAMES
    assert "_EVN.mrc" in Path(denoised._getExtraPath("micrographs.star")).read_text()
