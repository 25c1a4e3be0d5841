from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import threading
import time
from collections.abc import Sequence
from pathlib import Path

import mrcfile
import numpy as np
import pytest
import torch

from cryoplug.cli.main import run as command_line
from cryoplug.core.results import BatchResult, FileResult
from cryoplug.disk import retry
from cryoplug.disk.atomic import partial_path_of
from cryoplug.errors import DeviceError, InputError, MissingInputError, Stopped, StorageError, UsageError
from cryoplug.formats.mrc import MrcMicrograph, MrcRowWriter, read_header, validate_mrc, write_mrc
from cryoplug.formats.star import micrograph_table, read_star
from cryoplug.inference.denoiser import Denoiser
from cryoplug.inference.network.memory_plan import parse_size
from cryoplug.models.checkpoint import Checkpoint, save_checkpoint
from cryoplug.models.registry import model_spec
from cryoplug.outputs import planning
from cryoplug.workflows.denoise import DenoiseRequest, denoise
from cryoplug.workflows.denoise import workflow as denoise_module

STAR = """
# version 30001

data_optics

loop_
_rlnOpticsGroupName #1
_rlnOpticsGroup #2
_rlnMicrographPixelSize #3
_rlnVoltage #4
opticsGroup1 1 1.250000 300.000000
opticsGroup2 2 0.830000 200.000000

# version 30001

data_micrographs

loop_
_rlnMicrographName #1
_rlnOpticsGroup #2
_rlnCtfMaxResolution #3
MotionCorr/job002/Movies/a.mrc 1 4.90000
MotionCorr/job002/Movies/b.mrc 2 5.12345
MotionCorr/job002/Movies/c.mrc 1 3.00000

data_notes

_rlnPipeLineJobCounter 7
"""


def weights_of(seed: int) -> dict[str, np.ndarray]:
    return {name: tensor.numpy() for name, tensor in model_spec("cryo_cnn").build(seed=seed).state_dict().items()}


@pytest.fixture(scope="session")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("checkpoints")
    for seed in (1, 2):
        checkpoint = Checkpoint("cryo_cnn", weights_of(seed), normalize="zscore")
        save_checkpoint(folder / f"run{seed}" / "epoch_0001", checkpoint, 0.5)
    return folder / "run1", folder / "run2"


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def pixels(seed: int, shape: tuple[int, int] = (70, 90)) -> np.ndarray:
    return np.random.default_rng(seed).normal(50, 4, shape).astype(np.float32)


def micrographs(folder: Path, names: Sequence[str] = "abc", **named: object) -> list[Path]:
    paths = [folder / f"{name}.mrc" for name in names]
    for seed, path in enumerate(paths):
        write_mrc(path, pixels(seed), **{"pixel_size_angstrom": 1.25, **named})
    return paths


def go(checkpoint: Path, *inputs: object, output: str = "out", **named: object) -> BatchResult:
    request = DenoiseRequest(
        tuple(map(str, inputs)), checkpoint, Path(output), **{"device": "cpu", "threads": 2, **named}
    )
    return denoise(request)


def statuses(batch: BatchResult) -> list[str]:
    return [item.status for item in batch.files]


def partials(folder: Path) -> list[Path]:
    return list(folder.rglob("*partial*"))


# What comes out.


def test_the_output_is_a_valid_mrc_of_the_same_shape_sampling_and_units(here, checkpoints, capsys):
    (path,) = micrographs(here, "a")
    batch = go(checkpoints[0], path)
    assert batch.exit_code == 0 and statuses(batch) == ["done"]
    assert mrcfile.validate("out/a.mrc"), capsys.readouterr().out
    with mrcfile.open("out/a.mrc") as mrc:
        wanted = Denoiser.from_checkpoint(checkpoints[0], device="cpu", threads=1).denoise(pixels(0))
        assert mrc.data.dtype == np.float32 and np.allclose(mrc.data, wanted, rtol=0, atol=1e-4)
        assert float(mrc.voxel_size.x) == pytest.approx(1.25)
        label = mrc.get_labels()[-1]
    sha = batch.details["checkpoint_sha256"][:12]
    assert label.startswith("cryoplug ") and label.endswith(f" cryo_cnn sha256:{sha}")


def test_normalize_none_applies_the_bare_network(here, checkpoints):
    (path,) = micrographs(here, "a")
    go(checkpoints[0], path, normalize="none")
    wanted = Denoiser.from_checkpoint(checkpoints[0], normalize="none", device="cpu").denoise(pixels(0))
    assert np.allclose(mrcfile.read("out/a.mrc"), wanted, rtol=1e-5, atol=1e-4)


def test_percentile_that_clips_much_warns_and_names_zscore(here, checkpoints):
    write_mrc(here / "half_negative.mrc", pixels(0) - 50)
    (result,) = go(checkpoints[0], here / "half_negative.mrc", normalize="percentile").files
    assert result.status == "done"
    assert "% of the pixels" in result.message and "--normalize zscore" in result.message


def test_an_ordinary_micrograph_gives_no_warning(here):
    micrographs(here, "a")
    module = model_spec("residual_cnn").build(seed=1)
    weights = {name: tensor.numpy() for name, tensor in module.state_dict().items()}
    weights["conv12.weight"][:], weights["conv12.bias"][:] = 0, 0  # it predicts no noise: nothing is changed
    save_checkpoint(here / "run" / "epoch_0001", Checkpoint("residual_cnn", weights, normalize="zscore"), 0.5)
    for kind in ("percentile", "zscore", "none"):
        (result,) = go(here / "run", here / "a.mrc", normalize=kind, output=kind).files
        assert result.message == ""


def test_same_names_in_two_folders_keep_their_folders(here, checkpoints):
    for folder in ("one", "two"):
        (here / folder).mkdir()
        micrographs(here / folder, "a")
    batch = go(checkpoints[0], "one/a.mrc", "two/a.mrc")
    assert [item.output for item in batch.files] == [Path("out/one/a.mrc"), Path("out/two/a.mrc")]


# Bad inputs.


def test_bad_files_are_named_and_never_stop_the_others(here, checkpoints):
    paths = micrographs(here, "abcde")
    paths[1].write_bytes(paths[1].read_bytes()[:3000])
    write_mrc(paths[2], np.full((70, 90), 7.0))
    with_nan = pixels(3)
    with_nan[5, 6] = np.nan
    write_mrc(paths[3], with_nan)
    batch = go(checkpoints[0], *paths, "missing.mrc")
    assert batch.exit_code == 3
    assert statuses(batch) == ["done", "failed", "failed", "failed", "done", "failed"]
    for result, word in zip(
        batch.files, ["", "bytes", "all 6300 pixels are 7", "(5, 6)", "", "no such file"], strict=True
    ):
        assert word in result.message
        assert result.status == "done" or str(result.input.name) in result.message
    assert sorted(path.name for path in Path("out").glob("*.mrc")) == ["a.mrc", "e.mrc"]
    assert not partials(here)


def test_when_no_input_is_usable_the_exit_code_is_4(here, checkpoints):
    (here / "a.mrc").write_text("no micrograph")
    assert go(checkpoints[0], "a.mrc", "b.mrc").exit_code == 4


def test_a_checkpoint_that_is_not_there_is_named_before_anything_runs(here):
    micrographs(here, "a")
    with pytest.raises(MissingInputError, match="nowhere"):
        go(Path("nowhere"), "a.mrc")
    assert not Path("out").exists()


def test_a_gpu_that_is_not_there_is_a_device_error(here, checkpoints):
    micrographs(here, "a")
    with pytest.raises(DeviceError, match="cuda:99"):
        go(checkpoints[0], "a.mrc", device="cuda:99")


def test_all_wrong_options_are_named_at_once():
    with pytest.raises(UsageError, match=r"no input.*--normalize 'x'.*--tile -1.*--threads -1"):
        DenoiseRequest((), Path("c"), Path("o"), normalize="x", tile=-1, threads=-1)


# Never an input, never outside.


def as_same_file(here: Path) -> str:
    return "."


def as_symlink(here: Path) -> str:
    (here / "out").mkdir()
    (here / "out" / "a.mrc").symlink_to(here / "a.mrc")
    return "out"


def as_hard_link(here: Path) -> str:
    (here / "out").mkdir()
    os.link(here / "a.mrc", here / "out" / "a.mrc")
    return "out"


def as_linked_folder(here: Path) -> str:
    (here / "out").symlink_to(here)
    return "out"


@pytest.mark.parametrize("how", [as_same_file, as_symlink, as_hard_link, as_linked_folder])
def test_an_input_is_never_overwritten(here, checkpoints, how):
    (path,) = micrographs(here, "a")
    before = path.read_bytes()
    with pytest.raises(UsageError, match="inputs are never overwritten"):
        go(checkpoints[0], "a.mrc", output=how(here), overwrite=True)
    assert path.read_bytes() == before


def test_the_output_of_one_input_may_not_be_another_input(here, checkpoints):
    (here / "out").mkdir()
    micrographs(here, "a")
    micrographs(here / "out", "b")
    with pytest.raises(UsageError, match="inputs are never overwritten"):
        denoise(DenoiseRequest(("a.mrc", "out/b.mrc"), checkpoints[0], Path("out"), device="cpu"))


def test_a_link_in_the_output_folder_cannot_lead_outside(here, checkpoints):
    (here / "mics" / "sub").mkdir(parents=True)
    micrographs(here / "mics" / "sub", "a")
    (here / "elsewhere").mkdir()
    (here / "out").mkdir()
    (here / "out" / "sub").symlink_to(here / "elsewhere")
    with pytest.raises(UsageError, match="outside of the output folder"):
        go(checkpoints[0], "mics")
    assert not list((here / "elsewhere").iterdir())


def test_the_longest_name_works_and_a_longer_one_is_named_before_the_work(here, checkpoints):
    longest = "x" * 213
    micrographs(here, [longest])
    assert statuses(go(checkpoints[0], f"{longest}.mrc")) == ["done"]
    micrographs(here, [longest + "y"])
    with pytest.raises(UsageError, match=r"a name of 218 bytes \(allowed: 217\)"):
        go(checkpoints[0], f"{longest}y.mrc")


def test_an_output_that_is_a_file_is_refused(here, checkpoints):
    micrographs(here, "a")
    (here / "out").write_text("mine")
    with pytest.raises(UsageError, match="this is a file"):
        go(checkpoints[0], "a.mrc")


def test_results_within_the_folder_of_inputs_are_not_denoised_again(here, checkpoints):
    (here / "mics").mkdir()
    micrographs(here / "mics", "ab")
    assert statuses(go(checkpoints[0], "mics", output="mics/denoised")) == ["done", "done"]
    again = go(checkpoints[0], "mics", output="mics/denoised")
    assert statuses(again) == ["skipped", "skipped"]


def test_a_folder_that_holds_nothing_but_results_is_no_input(here, checkpoints):
    micrographs(here, "a")
    go(checkpoints[0], "a.mrc")
    with pytest.raises(InputError, match="result of an earlier run"):
        go(checkpoints[0], "out")


# Again.


def test_finished_files_are_skipped_and_overwrite_redoes_them(here, checkpoints):
    paths = micrographs(here)
    go(checkpoints[0], *paths)
    before = {path.name: path.stat().st_mtime_ns for path in Path("out").glob("*.mrc")}
    assert statuses(go(checkpoints[0], *paths)) == ["skipped"] * 3
    assert {path.name: path.stat().st_mtime_ns for path in Path("out").glob("*.mrc")} == before
    assert statuses(go(checkpoints[0], *paths, overwrite=True)) == ["done"] * 3


def test_a_second_run_with_nothing_to_do_does_not_touch_the_device(here, checkpoints):
    paths = micrographs(here)
    go(checkpoints[0], *paths)
    assert statuses(go(checkpoints[0], *paths, device="cuda:99")) == ["skipped"] * 3


def test_an_input_that_changed_is_redone(here, checkpoints):
    paths = micrographs(here)
    go(checkpoints[0], *paths)
    write_mrc(paths[1], pixels(9))
    assert statuses(go(checkpoints[0], *paths)) == ["skipped", "done", "skipped"]


@pytest.mark.parametrize("change", [{"checkpoint": 1}, {"normalize": "percentile"}])
def test_results_of_another_checkpoint_or_setting_are_not_replaced_unasked(here, checkpoints, change):
    paths = micrographs(here, "a")
    go(checkpoints[0], *paths)
    before = Path("out/a.mrc").read_bytes()
    named = {key: value for key, value in change.items() if key != "checkpoint"}
    batch = go(checkpoints[change.get("checkpoint", 0)], *paths, **named)
    assert statuses(batch) == ["failed"] and batch.exit_code == 2
    assert "--overwrite" in batch.files[0].message
    assert Path("out/a.mrc").read_bytes() == before


def test_a_foreign_file_is_not_replaced_unasked_and_the_others_are_done(here, checkpoints):
    paths = micrographs(here)
    Path("out").mkdir()
    Path("out/b.mrc").write_bytes(b"precious")
    batch = go(checkpoints[0], *paths)
    assert statuses(batch) == ["done", "failed", "done"] and batch.exit_code == 3
    assert Path("out/b.mrc").read_bytes() == b"precious"


def test_an_output_that_was_changed_afterwards_is_not_replaced_unasked(here, checkpoints):
    micrographs(here, "a")
    go(checkpoints[0], "a.mrc")
    Path("out/a.mrc").write_bytes(b"edited")
    assert "was changed" in go(checkpoints[0], "a.mrc").files[0].message


def test_an_output_that_was_deleted_is_made_again(here, checkpoints):
    micrographs(here, "a")
    go(checkpoints[0], "a.mrc")
    Path("out/a.mrc").unlink()
    assert statuses(go(checkpoints[0], "a.mrc")) == ["done"]


def test_a_file_whose_run_was_killed_before_it_was_acknowledged_is_redone(here, checkpoints):
    micrographs(here, "a")
    go(checkpoints[0], "a.mrc")
    record = next(Path("out", planning.RECORD_FOLDER).glob("*.json"))
    values = json.loads(record.read_text())
    record.write_text(json.dumps({**values, "finished": False, "output_size_bytes": 0}))
    assert statuses(go(checkpoints[0], "a.mrc")) == ["done"]


def test_what_a_killed_run_left_of_a_file_goes_when_the_file_is_done_again(here, checkpoints):
    micrographs(here, "a")
    go(checkpoints[0], "a.mrc")
    record = next(Path("out", planning.RECORD_FOLDER).glob("*.json"))
    dead = subprocess.Popen(["true"])
    dead.wait()
    values = {**json.loads(record.read_text()), "finished": False, "pid": dead.pid}
    record.write_text(json.dumps(values))
    target = Path("out/a.mrc")
    target.rename(partial_path_of(target, values["host"], dead.pid))
    living = here / partial_path_of(target, values["host"], os.getppid())
    living.write_bytes(b"another run")
    assert statuses(go(checkpoints[0], "a.mrc")) == ["done"]
    assert partials(here) == [living]


@pytest.mark.parametrize("text", ["", "{}", "[]", "null", '{"finished": true}', "\x00", "[" * 5000])
def test_a_damaged_record_counts_as_none(here, checkpoints, text):
    micrographs(here, "a")
    go(checkpoints[0], "a.mrc")
    next(Path("out", planning.RECORD_FOLDER).glob("*.json")).write_text(text)
    assert "no record" in go(checkpoints[0], "a.mrc").files[0].message


# What is written besides the micrographs, and how.


def test_the_journal_has_a_line_for_every_micrograph_that_was_worked_on(here, checkpoints):
    micrographs(here, "ab")
    (here / "c.mrc").write_text("no micrograph")
    batch = go(checkpoints[0], "a.mrc", "b.mrc", "c.mrc")
    go(checkpoints[0], "a.mrc", "b.mrc")
    lines = [json.loads(line) for line in Path("out/denoise.jsonl").read_text().splitlines()]
    assert [(line["input"], line["status"], line["exit_code"]) for line in lines] == [
        ("a.mrc", "done", 0),
        ("b.mrc", "done", 0),
        ("c.mrc", "failed", 4),
    ]
    first = lines[0]
    assert (first["output"], first["shape"], first["pixel_size_angstrom"]) == ("out/a.mrc", [70, 90], 1.25)
    assert first["sigma_in"] == pytest.approx(pixels(0).std(), rel=1e-4)
    assert first["sigma_out"] == pytest.approx(mrcfile.read("out/a.mrc").std(), rel=1e-4)
    assert first["checkpoint_sha256"] == batch.details["checkpoint_sha256"] and first["pid"] == os.getpid()
    assert first["seconds"] > 0 and "no micrograph" not in lines[2]["message"] and "c.mrc" in lines[2]["message"]


def test_a_journal_line_that_a_full_disk_cut_does_not_spoil_the_next(here, checkpoints):
    micrographs(here, "a")
    Path("out").mkdir()
    Path("out/denoise.jsonl").write_text('{"input": "cut')
    go(checkpoints[0], "a.mrc")
    cut, whole = Path("out/denoise.jsonl").read_text().splitlines()
    assert cut == '{"input": "cut' and json.loads(whole)["input"] == "a.mrc"


def test_the_journal_cannot_be_the_star_file(here, checkpoints):
    micrographs(here, "a")
    with pytest.raises(UsageError, match="name of the journal"):
        go(checkpoints[0], "a.mrc", star=Path("out/denoise.jsonl"))


def test_float16_is_half_the_bytes_of_the_same_pixels(here, checkpoints):
    micrographs(here, "a")
    go(checkpoints[0], "a.mrc")
    batch = go(checkpoints[0], "a.mrc", output="half", float16=True)
    assert statuses(batch) == ["done"] and batch.files[0].message == ""
    # mrcfile's own validator overflows on float16, for files that mrcfile wrote, too.
    assert validate_mrc(Path("half/a.mrc")) == []
    wanted = mrcfile.read("out/a.mrc").astype(np.float16)
    with mrcfile.open("half/a.mrc") as mrc:
        assert mrc.data.dtype == np.float16 and np.array_equal(mrc.data, wanted)
        assert float(mrc.header.dmean) == pytest.approx(wanted.mean(dtype=np.float64), rel=1e-6)
        assert float(mrc.header.rms) == pytest.approx(wanted.std(dtype=np.float64), rel=1e-6)
        assert float(mrc.header.dmax) == wanted.max()
        assert mrc.get_labels()[-1].endswith(" float16")


def test_what_float16_cannot_hold_fails_alone_and_what_it_rounds_much_is_told(here, checkpoints):
    write_mrc(here / "a.mrc", pixels(0))
    write_mrc(here / "b.mrc", pixels(1, (900, 90)) * 3000)
    write_mrc(here / "c.mrc", pixels(2) / 4 + 6800)
    batch = go(checkpoints[0], "a.mrc", "b.mrc", "c.mrc", float16=True)
    assert statuses(batch) == ["done", "failed", "done"] and batch.exit_code == 3
    assert "does not fit into float16" in batch.files[1].message and batch.files[1].exit_code == 4
    assert "float16 rounds the pixels by" in batch.files[2].message
    assert not Path("out/b.mrc").exists() and not partials(here)


def test_another_type_of_pixels_is_another_setting(here, checkpoints):
    micrographs(here, "a")
    go(checkpoints[0], "a.mrc")
    batch = go(checkpoints[0], "a.mrc", float16=True)
    assert "was made with dtype float32, now float16" in batch.files[0].message
    record = next(Path("out", planning.RECORD_FOLDER).glob("*.json"))
    values = json.loads(record.read_text())
    del values["settings"]["dtype"]  # as it was before there was a choice
    record.write_text(json.dumps(values))
    assert statuses(go(checkpoints[0], "a.mrc")) == ["skipped"]


def test_too_little_memory_names_the_least_and_the_least_works(here, checkpoints):
    (path,) = micrographs(here, "a")
    go(checkpoints[0], path, output="free")
    with pytest.raises(UsageError, match="--max-memory 1MB: too little") as caught:
        go(checkpoints[0], path, max_memory_bytes=1_000_000)
    least = parse_size(str(caught.value).rpartition(" ")[2])
    assert statuses(go(checkpoints[0], path, max_memory_bytes=int(least * 1.2))) == ["done"]
    assert np.allclose(mrcfile.read("out/a.mrc"), mrcfile.read("free/a.mrc"), rtol=0, atol=1e-4)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
@pytest.mark.parametrize("named", [{"gpu": (0,)}, {"gpu": (7,)}, {"device": "cuda"}])
def test_a_gpu_that_was_asked_for_and_is_not_there_never_becomes_a_cpu(here, checkpoints, named):
    micrographs(here, "a")
    with pytest.raises(DeviceError, match="no GPU that this PyTorch can use") as caught:
        go(checkpoints[0], "a.mrc", **{"device": "auto", **named})
    assert caught.value.exit_code == 7 and not list(Path("out").glob("*.mrc"))


def test_a_cpu_run_on_a_machine_that_should_have_a_gpu_is_told(here, checkpoints, monkeypatch):
    micrographs(here, "a")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    notes: list[str] = []
    request = DenoiseRequest(("a.mrc",), checkpoints[0], Path("out"), overwrite=True)
    denoise(request, note=notes.append)
    assert notes == []
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3")
    denoise(request, note=notes.append)
    assert notes == ["CUDA_VISIBLE_DEVICES=3 names a GPU, but PyTorch finds none; computing on the CPU"]


# Faults and signals.


@pytest.mark.parametrize(
    ("number", "advice"),
    [(errno.EROFS, "can only be read"), (errno.EACCES, "permission"), (errno.ENOSPC, "free space")],
)
def test_an_output_that_cannot_be_written_is_told_before_the_work(here, checkpoints, monkeypatch, number, advice):
    micrographs(here, "a")
    real = Path.open

    def refusing(self: Path, mode: str = "r", *rest: object, **named: object) -> object:
        if self.parent.name == "out" and "w" in mode:
            raise OSError(number, os.strerror(number))
        return real(self, mode, *rest, **named)

    monkeypatch.setattr(Path, "open", refusing)
    monkeypatch.setattr(Denoiser, "__init__", lambda *arguments, **named: pytest.fail("the work began"))
    with pytest.raises(StorageError, match=f"out: cannot be written: {os.strerror(number)}; .*{advice}") as caught:
        go(checkpoints[0], "a.mrc")
    assert caught.value.exit_code == 5


def test_a_micrograph_on_a_bad_sector_is_failed_by_name_and_the_others_are_done(here, checkpoints, monkeypatch):
    paths = micrographs(here, "abc")
    real = os.preadv

    def failing(descriptor: int, buffers: list[memoryview], offset: int) -> int:
        if Path(f"/proc/self/fd/{descriptor}").readlink().name == "b.mrc":
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return real(descriptor, buffers, offset)

    monkeypatch.setattr(os, "preadv", failing)
    monkeypatch.setattr(retry, "PAUSES_S", (0.0,))
    result = go(checkpoints[0], *paths)
    assert (statuses(result), result.exit_code) == (["done", "failed", "done"], 3)
    assert result.files[1].message == f"{paths[1]}: reading failed: Input/output error; check permissions and disk"
    assert not partials(here)


def test_an_output_below_a_file_is_a_storage_error(here, checkpoints):
    micrographs(here, "a")
    Path("file").write_text("")
    with pytest.raises(StorageError, match="file/out: cannot be written: Not a directory"):
        go(checkpoints[0], "a.mrc", output="file/out")


def test_what_is_finished_is_told_though_the_output_can_only_be_read(here, checkpoints, monkeypatch):
    micrographs(here, "a")
    go(checkpoints[0], "a.mrc")
    monkeypatch.setattr(denoise_module, "check_writable", lambda folder: pytest.fail("it tried to write"))
    assert statuses(go(checkpoints[0], "a.mrc")) == ["skipped"]


def test_a_full_disk_stops_everything_and_leaves_no_half_file(here, checkpoints, monkeypatch):
    paths = micrographs(here, "abcdef")
    real = MrcRowWriter.write_rows
    written = []

    def filling(self: MrcRowWriter, rows: np.ndarray) -> None:
        written.append(rows.shape)
        if len(written) == 3:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(self, rows)

    with monkeypatch.context() as patch:
        patch.setattr(MrcRowWriter, "write_rows", filling)
        with pytest.raises(StorageError, match=r"out/c\.mrc: No space left") as caught:
            go(checkpoints[0], *paths)
    assert caught.value.exit_code == 5
    assert sorted(path.name for path in Path("out").glob("*.mrc")) == ["a.mrc", "b.mrc"]
    assert not partials(here) and len(written) == 3
    assert statuses(go(checkpoints[0], *paths)) == ["skipped", "skipped", "done", "done", "done", "done"]


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_keeps_finished_files_and_the_same_command_goes_on(here, checkpoints, number, code):
    paths = micrographs(here, "abcdefghijkl")
    before = signal.getsignal(number)
    seen: list[FileResult] = []

    def progress(result: FileResult) -> None:
        seen.append(result)
        if len(seen) == 2:
            os.kill(os.getpid(), number)
            # The writer waits until the main thread has heard of it.
            threading.Event().wait(0.3)

    request = DenoiseRequest(tuple(map(str, paths)), checkpoints[0], Path("out"), device="cpu", threads=1)
    with pytest.raises(Stopped, match="of 12 micrographs are finished") as caught:
        denoise(request, progress)
    assert caught.value.exit_code == code
    assert signal.getsignal(number) is before
    assert not partials(here)
    finished = len(list(Path("out").glob("*.mrc")))
    assert 2 <= finished < 12
    assert sorted(statuses(denoise(request))) == ["done"] * (12 - finished) + ["skipped"] * finished


def test_sigusr1_is_answered_and_everything_goes_on(here, checkpoints):
    paths = micrographs(here, "abcd")
    notes: list[str] = []

    def progress(result: FileResult) -> None:
        if result.input.name == "b.mrc":
            os.kill(os.getpid(), signal.SIGUSR1)
            threading.Event().wait(0.3)

    request = DenoiseRequest(tuple(map(str, paths)), checkpoints[0], Path("out"), device="cpu", threads=1)
    assert statuses(denoise(request, progress, notes.append)) == ["done"] * 4
    assert notes == ["SIGUSR1: 2 finished micrographs are on the disk already; going on"]


def test_a_stop_is_heeded_while_a_micrograph_is_measured(here, checkpoints, monkeypatch):
    write_mrc(here / "tall.mrc", pixels(0, (40000, 20)))
    real = MrcMicrograph.read_rows
    reads = []

    def slow(self: MrcMicrograph, start: int, stop: int) -> np.ndarray:
        reads.append(start)
        if len(reads) == 3:
            os.kill(os.getpid(), signal.SIGTERM)
        threading.Event().wait(0.05)
        return real(self, start, stop)

    monkeypatch.setattr(MrcMicrograph, "read_rows", slow)
    began = time.monotonic()
    with pytest.raises(Stopped, match="0 of 1 micrographs"):
        go(checkpoints[0], "tall.mrc")
    assert len(reads) < 10, "157 bands are measured four times, 30 s at this pace"
    assert time.monotonic() - began < 5
    assert not partials(here)


def test_outside_of_the_main_thread_no_signal_handler_is_set(here, checkpoints):
    micrographs(here, "a")
    found: list[BatchResult] = []
    worker = threading.Thread(target=lambda: found.append(go(checkpoints[0], "a.mrc")))
    worker.start()
    worker.join()
    assert statuses(found[0]) == ["done"]


# STAR.


@pytest.fixture
def project(here: Path) -> Path:
    movies = here / "MotionCorr" / "job002" / "Movies"
    movies.mkdir(parents=True)
    micrographs(movies, pixel_size_angstrom=None)
    (here / "in.star").write_text(STAR)
    return here


def test_star_in_gives_star_out_with_everything_kept(project, checkpoints):
    batch = go(checkpoints[0], "in.star", output="Denoised", star=Path("Denoised/out.star"))
    assert batch.exit_code == 0 and batch.outputs == (Path("Denoised/out.star"),) and batch.details["left_out"] == []
    old, new = read_star("in.star"), read_star("Denoised/out.star")
    assert [block.name for block in new.blocks] == ["optics", "micrographs", "notes"]
    assert new.block("optics") == old.block("optics") and new.block("notes").rows == old.block("notes").rows
    table = micrograph_table(new)
    assert table.columns == [*micrograph_table(old).columns, "cryoplugMicrographNameRaw"]
    assert table.column("rlnMicrographName") == [f"Denoised/Movies/{name}.mrc" for name in "abc"]
    assert table.column("cryoplugMicrographNameRaw") == micrograph_table(old).column("rlnMicrographName")
    assert table.column("rlnCtfMaxResolution") == ["4.90000", "5.12345", "3.00000"]
    assert all(Path(name).is_file() for name in table.column("rlnMicrographName"))


def test_a_pixel_size_that_only_the_star_knows_goes_into_the_header(project, checkpoints):
    go(checkpoints[0], "in.star", output="Denoised")
    for name, size in zip("abc", (1.25, 0.83, 1.25), strict=True):
        with mrcfile.open(f"Denoised/Movies/{name}.mrc", header_only=True) as mrc:
            assert float(mrc.voxel_size.x) == pytest.approx(size)


def test_rows_whose_micrograph_failed_are_left_out_and_named(project, checkpoints):
    Path("MotionCorr/job002/Movies/b.mrc").unlink()
    batch = go(checkpoints[0], "in.star", output="Denoised", star=Path("out.star"))
    assert batch.exit_code == 3 and batch.details["left_out"] == ["MotionCorr/job002/Movies/b.mrc"]
    names = micrograph_table(read_star("out.star")).column("cryoplugMicrographNameRaw")
    assert names == ["MotionCorr/job002/Movies/a.mrc", "MotionCorr/job002/Movies/c.mrc"]


def test_without_any_result_no_star_is_written(project, checkpoints):
    for name in "abc":
        Path(f"MotionCorr/job002/Movies/{name}.mrc").unlink()
    batch = go(checkpoints[0], "in.star", output="Denoised", star=Path("out.star"))
    assert batch.exit_code == 4 and not Path("out.star").exists() and batch.outputs == ()


def test_files_outside_of_the_working_folder_are_named_from_the_root(project, checkpoints, tmp_path_factory):
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    go(checkpoints[0], "in.star", output=str(elsewhere), star=Path("out.star"))
    (first, *_) = micrograph_table(read_star("out.star")).column("rlnMicrographName")
    assert first == str(elsewhere / "Movies" / "a.mrc")


def test_a_row_that_names_a_micrograph_again_follows_the_first(project, checkpoints):
    text = STAR.replace("c.mrc 1 3.00000", "c.mrc 1 3.00000\nMotionCorr/job002/Movies/a.mrc 1 9.9")
    Path("in.star").write_text(text)
    go(checkpoints[0], "in.star", output="Denoised", star=Path("out.star"))
    names = micrograph_table(read_star("out.star")).column("rlnMicrographName")
    assert names == [f"Denoised/Movies/{name}.mrc" for name in "abca"]


def test_without_star_input_a_star_of_version_3_1_is_made(here, checkpoints):
    micrographs(here, "ab")
    write_mrc(here / "c.mrc", pixels(3), pixel_size_angstrom=0.83)
    go(checkpoints[0], "a.mrc", "b.mrc", "c.mrc", star=Path("out.star"))
    star = read_star("out.star")
    assert star.block("optics").column("rlnMicrographPixelSize") == ["1.250000", "0.830000"]
    table = star.block("micrographs")
    assert table.column("rlnMicrographName") == ["out/a.mrc", "out/b.mrc", "out/c.mrc"]
    assert table.column("rlnOpticsGroup") == ["1", "1", "2"]
    assert table.column("cryoplugMicrographNameRaw") == ["a.mrc", "b.mrc", "c.mrc"]


def test_a_second_run_keeps_or_renews_its_own_star_but_no_foreign_one(project, checkpoints):
    named = {"output": "Denoised", "star": Path("out.star")}
    go(checkpoints[0], "in.star", **named)
    first = Path("out.star").read_bytes()
    go(checkpoints[0], "in.star", **named)
    assert Path("out.star").read_bytes() == first
    Path("out.star").write_text("data_mine\n")
    with pytest.raises(UsageError, match="no earlier run"):
        go(checkpoints[0], "in.star", **named)
    go(checkpoints[0], "in.star", overwrite=True, **named)
    assert Path("out.star").read_bytes() == first


def test_the_star_file_is_never_an_input(project, checkpoints):
    with pytest.raises(UsageError, match="inputs are never overwritten"):
        go(checkpoints[0], "in.star", star=Path("in.star"), overwrite=True)


def test_one_star_cannot_be_made_from_two_sources(project, checkpoints):
    write_mrc(project / "extra.mrc", pixels(5))
    with pytest.raises(UsageError, match="give one STAR file alone"):
        go(checkpoints[0], "in.star", "extra.mrc", star=Path("out.star"))


# The command line.


def test_the_command_writes_json_lines_and_the_exit_code(here, checkpoints, capsys):
    micrographs(here, "a")
    code = command_line(
        [
            "denoise",
            "a.mrc",
            "missing.mrc",
            "--checkpoint",
            str(checkpoints[0]),
            "-o",
            "out",
            "--json",
            "--device",
            "cpu",
        ]
    )
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert code == 3
    assert [(line["input"], line["status"]) for line in lines] == [("a.mrc", "done"), ("missing.mrc", "failed")]


def test_the_command_speaks_of_results_on_stdout_and_of_progress_on_stderr(here, checkpoints, capsys):
    micrographs(here, "a")
    arguments = ["denoise", "a.mrc", "--checkpoint", str(checkpoints[0]), "-o", "out", "--star", "out.star"]
    assert command_line(arguments) == 0
    told = capsys.readouterr()
    assert told.out == "1 done -> out\nSTAR -> out.star\n"
    assert "a.mrc: done in" in told.err


def test_the_command_takes_gpu_memory_and_float16(here, checkpoints, capsys):
    micrographs(here, "a")
    arguments = ["denoise", "a.mrc", "--checkpoint", str(checkpoints[0]), "-o", "out", "--device", "cpu"]
    assert command_line([*arguments, "--gpu", "0"]) == 2
    assert "--gpu 0 and --device cpu name two devices" in capsys.readouterr().err
    assert command_line([*arguments, "--max-memory", "much"]) == 2
    assert "as in 2GB" in capsys.readouterr().err
    assert command_line([*arguments, "--max-memory", "10MB"]) == 2
    assert "too little; the least for this network" in capsys.readouterr().err
    assert command_line([*arguments, "--max-memory", "64GB", "--float16"]) == 0
    assert read_header("out/a.mrc").mode == 12


def test_real_micrographs_come_through(shared_data, seed_checkpoints, here):
    names = ["micrographs/Ucsf_stack_1142_DW.mrc", "halves_apoferritin/May08_030502_ODD.mrc"]
    batch = go(seed_checkpoints / "cryo_cnn", *(shared_data / name for name in names), normalize="zscore")
    assert statuses(batch) == ["done", "done"]
    for name in names:
        out = Path("out", Path(name).name)
        assert mrcfile.read(out).shape == mrcfile.read(shared_data / name).shape
        assert np.isfinite(mrcfile.read(out)).all()
