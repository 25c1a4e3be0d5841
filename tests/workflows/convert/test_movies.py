"""Movies become a store of halves."""

from __future__ import annotations

import os
import re
import signal
import time
from pathlib import Path

import numpy as np
import pytest
import tifffile

from cryoplug.errors import PairingError, Stopped, UsageError
from cryoplug.formats import registry
from cryoplug.formats.mrc_writer import write_mrc
from cryoplug.store.pairs import open_store
from cryoplug.workflows.convert import ConvertRequest, convert
from inputs.movies.made_movies import (
    FRAMES,
    SHAPE,
    detector,
    drift,
    raw_frames,
    specimen,
    write_motion,
    write_stack,
)


def request(inputs: Path | tuple[str, ...], output: Path, **more: object) -> ConvertRequest:
    named = (str(inputs),) if isinstance(inputs, Path) else inputs
    return ConvertRequest(named, output, pairs="halves", patch_size=64, stride=64, test_split=0, **more)  # type: ignore[arg-type]


def test_a_folder_of_movies_becomes_a_store_of_aligned_corrected_halves(tmp_path):
    gain = detector()
    folder = tmp_path / "movies"
    for i in range(3):
        write_stack(folder / f"m{i}.mrc", raw_frames(gain=gain, seed=i, sample=50 + i))
        write_motion(folder / f"m{i}.star", drift())
    write_mrc(folder / "gain.mrc", gain, pixel_size_angstrom=1)
    asked = request(folder, tmp_path / "s", gain=folder / "gain.mrc")
    result = convert(asked)
    assert [(found.input.name, found.status) for found in result.files] == [(f"m{i}.mrc", "done") for i in range(3)]
    assert [found.message for found in result.files] == [""] * 3
    assert convert(asked).details["complete"]
    with open_store(tmp_path / "s") as store:
        assert store.verify() == []
        entry = store.manifest.micrographs[0]
        assert (entry.name, entry.clean_name, entry.pixel_size_angstrom) == ("m0.mrc", None, pytest.approx(1.1))
        assert entry.clean_normalization["scale"] > entry.normalization["scale"], "five odd frames, four even ones"
        noisy, clean = (np.empty((1, 64, 64), np.float32) for _ in range(2))
        store.read([6], noisy, clean)
        y, x = store.manifest.windows["train"][6][1:]
        truth = specimen(50)[y : y + 64, x : x + 64]
        assert min(np.corrcoef(side.ravel(), truth.ravel())[0, 1] for side in (noisy, clean)) > 0.6


def test_the_store_belongs_to_its_gain_defects_and_motion(tmp_path):
    movie = write_stack(tmp_path / "m.mrc", raw_frames(still=True))
    write_mrc(tmp_path / "gain.mrc", np.ones(SHAPE, np.float32), pixel_size_angstrom=1)
    (tmp_path / "d.txt").write_text("1 1 1 1\n")
    convert(request(movie, tmp_path / "s", gain=tmp_path / "gain.mrc"))
    with pytest.raises(UsageError, match="made with other gain;"):
        convert(request(movie, tmp_path / "s"))
    with pytest.raises(UsageError, match="made with other defects;"):
        convert(request(movie, tmp_path / "s", gain=tmp_path / "gain.mrc", defects=tmp_path / "d.txt"))
    write_motion(tmp_path / "m.star", drift())
    with pytest.raises(UsageError, match="made with other inputs;"):
        convert(request(movie, tmp_path / "s", gain=tmp_path / "gain.mrc"))


def test_what_is_missing_is_said_once_and_the_shared_pattern_for_each_movie(tmp_path):
    for i in range(2):
        write_stack(tmp_path / "in" / f"m{i}.mrc", raw_frames(gain=detector(), still=True, seed=i, sample=50 + i))
    first, second = (found.message for found in convert(request(tmp_path / "in", tmp_path / "s")).files)
    assert "no --gain: " in first
    assert "no motion STAR file" in first
    assert "no --gain: " not in second
    for message in (first, second):
        assert "fixed pattern: the halves correlate by 0." in message


def test_the_movies_of_a_corrected_micrographs_star_are_found_with_their_motion(tmp_path, monkeypatch):
    job = tmp_path / "MotionCorr" / "job002" / "Movies"
    write_stack(tmp_path / "Movies" / "m.mrc", raw_frames())
    write_mrc(job / "m.mrc", specimen().astype(np.float32), pixel_size_angstrom=2.2)
    write_motion(job / "m.star", drift(), rlnMicrographMovieName="Movies/m.mrc")
    star = tmp_path / "MotionCorr" / "job002" / "corrected_micrographs.star"
    star.write_text(
        "\ndata_micrographs\n\nloop_\n_rlnMicrographName #1\n_rlnMicrographMetadata #2\n"
        "MotionCorr/job002/Movies/m.mrc MotionCorr/job002/Movies/m.star \n"
    )
    (found,) = convert(request(star, tmp_path / "s")).files
    assert (found.input, found.status) == (tmp_path / "Movies" / "m.mrc", "done")
    assert "no motion" not in found.message
    with open_store(tmp_path / "s") as store:
        (entry,) = store.manifest.micrographs
        assert (entry.name, entry.pixel_size_angstrom) == ("Movies/m.mrc", pytest.approx(1.1))
    monkeypatch.chdir(tmp_path)
    assert convert(request(star.relative_to(tmp_path), tmp_path / "s")).details["complete"]


def test_halves_beside_micrographs_are_taken_when_there_are_no_movies(tmp_path):
    rng = np.random.default_rng(0)
    for i in range(2):
        for side in ("", "_EVN", "_ODD"):
            noisy = specimen(i) + rng.normal(0, 0.2, SHAPE)
            write_mrc(tmp_path / "in" / f"m{i}{side}.mrc", noisy.astype(np.float32), pixel_size_angstrom=1)
    result = convert(request(tmp_path / "in", tmp_path / "s"))
    assert [found.input.name for found in result.files] == ["m0_EVN.mrc", "m1_EVN.mrc"]
    with pytest.raises(UsageError, match="has one frame, so --gain and --defects cannot be applied"):
        convert(request(tmp_path / "in", tmp_path / "t", gain=tmp_path / "in" / "m0.mrc"))
    (tmp_path / "in" / "m1_ODD.mrc").unlink()
    result = convert(request(tmp_path / "in", tmp_path / "t"))
    assert [found.status for found in result.files] == ["done", "failed"] and result.exit_code == 3
    assert re.search(r"m1\.mrc: no m1_ODD\.mrc beside it\. .* give movies", result.files[1].message)
    (tmp_path / "in" / "m0_EVN.mrc").unlink()
    with pytest.raises(PairingError, match=r"2 of 2 have no halves: .*no m0_EVN\.mrc"):
        convert(request(tmp_path / "in", tmp_path / "u"))


def test_what_is_known_to_fail_is_not_chosen_for_testing(tmp_path):
    rng = np.random.default_rng(0)
    for i in range(6):
        for side in ("", "_EVN", "_ODD")[: 3 if i < 2 else 1]:
            noisy = specimen(i) + rng.normal(0, 0.2, SHAPE)
            write_mrc(tmp_path / "in" / f"m{i}{side}.mrc", noisy.astype(np.float32), pixel_size_angstrom=1)
    for seed in range(3):
        asked = ConvertRequest((f"{tmp_path}/in",), tmp_path / f"s{seed}", pairs="halves", patch_size=64, seed=seed)
        result = convert(asked)
        assert result.details["test_micrographs"] == 1 and len(result.failed) == 4


def test_stacks_beside_a_micrograph_without_halves(tmp_path):
    for side in ("EVN", "ODD"):
        write_stack(tmp_path / "in" / f"s_{side}.mrc", raw_frames(seed=0, sample=len(side) + ord(side[0])))
    write_mrc(tmp_path / "in" / "m.mrc", specimen().astype(np.float32), pixel_size_angstrom=1)
    result = convert(request(tmp_path / "in", tmp_path / "t", accept_unproven=True))
    assert {found.input.name for found in result.failed} >= {"m.mrc"}
    assert "no m_EVN.mrc and no m_ODD.mrc" in next(
        found.message for found in result.failed if found.input.name == "m.mrc"
    )


def test_a_file_of_one_frame_among_movies_fails_alone(tmp_path):
    write_stack(tmp_path / "in" / "a.mrc", raw_frames()[:1])  # the first one: the camera was stopped
    for name in "bc":
        write_stack(tmp_path / "in" / f"{name}.mrc", raw_frames(still=True, seed=ord(name)))
    result = convert(request(tmp_path / "in", tmp_path / "s"))
    assert [found.status for found in result.files] == ["failed", "done", "done"]
    assert "one frame; the halves of a movie need two or more" in result.files[0].message


def test_two_micrographs_never_share_a_movie(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    rows = ""
    for name, claimed in (("a", "a"), ("b", "a"), ("c", "c")):
        write_stack(Path(f"Movies/{name}.mrc"), raw_frames(still=True, seed=ord(name)))
        write_motion(
            Path(f"MotionCorr/job002/Movies/{name}.star"), drift(), rlnMicrographMovieName=f"Movies/{claimed}.mrc"
        )
        rows += f"MotionCorr/job002/Movies/{name}.mrc MotionCorr/job002/Movies/{name}.star\n"
    Path("c.star").write_text(f"data_micrographs\n\nloop_\n_rlnMicrographName\n_rlnMicrographMetadata\n{rows}")
    result = convert(request(("c.star",), Path("s")))
    assert [(str(found.input), found.status) for found in result.files] == [
        ("Movies/a.mrc", "done"), ("MotionCorr/job002/Movies/b.mrc", "failed"), ("Movies/c.mrc", "done")
    ]  # fmt: skip
    assert "b.star: is the motion of Movies/a.mrc, which is the movie of another micrograph" in result.files[1].message


def test_two_files_of_one_movie_stay_on_one_side_of_the_split(tmp_path):
    for name in "abcd":
        frames = raw_frames(still=True, seed=ord(name))
        write_stack(tmp_path / "in" / f"{name}.mrc", frames)
        tifffile.imwrite(tmp_path / "in" / f"{name}.tif", frames[:, ::-1])
    asked = ConvertRequest(
        (str(tmp_path / "in"),), tmp_path / "s", pairs="halves", patch_size=64, stride=64, test_split=0.5
    )
    convert(asked)
    with open_store(tmp_path / "s") as store:
        splits = {entry.name: entry.split for entry in store.manifest.micrographs}
    assert set(splits.values()) == {"train", "test"}
    assert all(splits[f"{name}.mrc"] == splits[f"{name}.tif"] for name in "abcd")


def test_the_patch_size_is_chosen_by_the_halves_which_may_be_binned(tmp_path):
    movie = write_stack(tmp_path / "m.mrc", raw_frames(still=True))
    write_motion(tmp_path / "m.star", [(0.0, 0.0)] * FRAMES, rlnMicrographBinning="2.000000")
    found = convert(ConvertRequest((str(movie),), tmp_path / "s", pairs="halves", store="whole"))
    assert (found.exit_code, found.details["patch_size"]) == (0, 96), "of halves of 120 x 160 pixels"


def test_halves_of_two_exposures_fail_alone_and_by_name(tmp_path, shared_data):
    folder = shared_data / "halves_apoferritin"
    names = sorted(path.name.removesuffix("_EVN.mrc") for path in folder.glob("*_EVN.mrc"))
    for side, order in (("EVN", (0, 1, 2)), ("ODD", (0, 2, 1))):
        (tmp_path / side).mkdir()
        for i, which in enumerate(order):
            (tmp_path / side / f"m{i}_{side}.mrc").symlink_to(folder / f"{names[which]}_{side}.mrc")
    asked = {"pairs": "halves", "even": (f"{tmp_path}/EVN",), "odd": (f"{tmp_path}/ODD",), "patch_size": 512}
    found = convert(ConvertRequest((), tmp_path / "s", **asked))
    assert [item.status for item in found.files] == ["done", "failed", "failed"]
    assert re.search(r"m1_EVN\.mrc and .*m1_ODD\.mrc do not belong together: .* 0\.0", found.files[1].message)
    assert found.exit_code == 3
    result = convert(ConvertRequest((), tmp_path / "t", accept_unproven=True, **asked))
    assert [found.status for found in result.files] == ["done", "done", "failed"]
    assert "accepted without proof" in result.files[1].message
    assert "m2_EVN.mrc shows what" in result.files[2].message, "that is a proof of the contrary"


def test_a_half_and_its_copy_are_refused(tmp_path):
    noisy = (specimen() + np.random.default_rng(0).normal(0, 0.5, SHAPE)).astype(np.float32)
    for side in ("EVN", "ODD"):
        write_mrc(tmp_path / f"m_{side}.mrc", noisy, pixel_size_angstrom=1)
    found = convert(request(tmp_path, tmp_path / "s"))
    assert "are one image: the halves correlate by 1.000" in found.files[0].message
    assert found.exit_code == 4, "nothing else is there"


def test_a_signal_while_frames_are_summed_stops_before_the_next_frame(tmp_path, monkeypatch):
    for i in range(2):
        write_stack(tmp_path / "in" / f"m{i}.mrc", raw_frames(seed=i, sample=50 + i))
    convert(request(tmp_path / "in", tmp_path / "t"))
    opened, read = registry.open_movie, []

    def open_movie(path: Path):
        movie = opened(path)
        plain = movie.read_frame

        def read_frame(index: int) -> np.ndarray:
            read.append((path.name, index))
            if (path.name, index) == ("m1.mrc", 3):
                os.kill(os.getpid(), signal.SIGTERM)
                time.sleep(0.1)  # Until the main thread has run the handler.
            return plain(index)

        movie.read_frame = read_frame
        return movie

    with monkeypatch.context() as patched:
        patched.setattr(registry, "open_movie", open_movie)
        with pytest.raises(Stopped, match="micrographs are safe") as caught:
            convert(request(tmp_path / "in", tmp_path / "s"))
    assert caught.value.exit_code == 143
    assert read[-1] == ("m1.mrc", 3)
    assert convert(request(tmp_path / "in", tmp_path / "s")).exit_code == 0
    for name in ("noisy_train.bin", "clean_train.bin"):
        assert (tmp_path / "s" / name).read_bytes() == (tmp_path / "t" / name).read_bytes()
