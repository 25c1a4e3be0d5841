"""Watching: what comes is denoised when it is complete, once, whatever happens to it on the way."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path

import mrcfile
import numpy as np
import pytest

from cryoplug.core.results import FileResult
from cryoplug.errors import CryoplugError, DeviceError, Stopped
from cryoplug.formats.mrc import write_mrc
from cryoplug.formats.star import image_table, read_star
from cryoplug.inference.denoiser import Denoiser
from cryoplug.inputs.completeness import missing_bytes
from cryoplug.models.checkpoint import Checkpoint, save_checkpoint
from cryoplug.models.registry import model_spec
from cryoplug.workflows.denoise import DenoiseRequest, denoise, watch
from cryoplug.workflows.denoise.watch import WatchResult

SETTLE_S = 0.15
STAR_HEAD = """
data_optics

loop_
_rlnOpticsGroup #1
_rlnMicrographPixelSize #2
1 1.250000

data_micrographs

loop_
_rlnMicrographName #1
_rlnOpticsGroup #2
"""


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    weights = {name: tensor.numpy() for name, tensor in model_spec("cryo_cnn").build(seed=1).state_dict().items()}
    folder = tmp_path_factory.mktemp("checkpoints") / "run" / "epoch_0001"
    save_checkpoint(folder, Checkpoint("cryo_cnn", weights, normalize="zscore"), 0.5)
    return folder.parent


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def pixels(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(50, 4, (70, 90)).astype(np.float32)


def come(*paths: str) -> None:
    for path in paths:
        write_mrc(Path(path), pixels(len(path)))


class Watcher:
    """Runs `denoise` in a thread while the test makes things happen."""

    def __init__(self, checkpoint: Path, *inputs: str, idle_exit_s: float = 1.0, **named: object) -> None:
        options = {"poll_s": 0.05, "settle_s": SETTLE_S, "device": "cpu", "threads": 1, **named}
        request = DenoiseRequest(inputs, checkpoint, Path("out"), watch=True, idle_exit_s=idle_exit_s, **options)
        self.seen: list[FileResult] = []
        self.notes: list[str] = []
        self._found: list[object] = []
        self._thread = threading.Thread(target=self._run, args=(request,))
        self._thread.start()

    def _run(self, request: DenoiseRequest) -> None:
        try:
            self._found.append(denoise(request, self.seen.append, self.notes.append))
        except CryoplugError as error:
            self._found.append(error)

    def until(self, happened: Callable[[], bool]) -> None:
        deadline = time.monotonic() + 20
        while not happened():
            assert self._thread.is_alive() and time.monotonic() < deadline, (self._found, self.seen, self.notes)
            time.sleep(0.01)

    def result(self) -> WatchResult:
        self._thread.join(30)
        assert not self._thread.is_alive()
        (found,) = self._found
        if isinstance(found, CryoplugError):
            raise found
        assert isinstance(found, WatchResult)
        return found

    @property
    def told(self) -> list[tuple[str, str]]:
        return [(item.input.name, item.status) for item in self.seen]


def assert_nothing_is_left_over() -> None:
    assert [path for path in Path("out").rglob("*") if "partial" in path.name or path.suffix == ".claim"] == []


def test_what_comes_is_denoised_by_one_warm_network(here, checkpoint, monkeypatch):
    made = []
    real = Denoiser.__init__
    monkeypatch.setattr(Denoiser, "__init__", lambda self, *rest, **named: made.append(1) or real(self, *rest, **named))
    watcher = Watcher(checkpoint, "incoming", "more/*.mrc")
    watcher.until(lambda: len(watcher.notes) >= 1)
    come("incoming/a.mrc", "incoming/b.mrc")
    watcher.until(lambda: len(watcher.seen) == 2)
    come("incoming/deep/c.mrc", "more/d.mrc")
    result = watcher.result()
    assert result.exit_code == 0 and made == [1]
    assert sorted(watcher.told) == [(name, "done") for name in ("a.mrc", "b.mrc", "c.mrc", "d.mrc")]
    assert sorted(str(path.relative_to("out")) for path in Path("out").rglob("*.mrc")) == [
        *("a.mrc", "b.mrc", "d.mrc", "deep/c.mrc")
    ]
    wanted = Denoiser.from_checkpoint(checkpoint, device="cpu", threads=1).denoise(pixels(len("more/d.mrc")))
    assert np.allclose(mrcfile.read("out/d.mrc"), wanted, rtol=0, atol=1e-4)
    assert [note for note in watcher.notes if "more/*.mrc" in note] == [watcher.notes[0]], (
        "said once, not at every look"
    )
    assert_nothing_is_left_over()


def test_a_file_is_not_taken_before_it_has_stood_still_and_is_as_long_as_its_header_says(here, checkpoint):
    come("whole.mrc")
    payload = Path("whole.mrc").read_bytes()
    Path("in").mkdir()
    watcher = Watcher(checkpoint, "in", idle_exit_s=3)
    grown = Path("in/a.mrc")
    for end in (0, 500, 1024, 9000):
        grown.write_bytes(payload[:end])
        time.sleep(2 * SETTLE_S)
        assert watcher.seen == []
    watcher.until(lambda: any("lacks" in note for note in watcher.notes))
    grown.write_bytes(payload)
    result = watcher.result()
    assert watcher.told == [("a.mrc", "done")] and result.exit_code == 0


def test_a_file_that_keeps_changing_is_waited_for(here, checkpoint):
    come("in/a.mrc")
    watcher = Watcher(checkpoint, "in", idle_exit_s=0.3)
    for turn in range(10):
        time.sleep(SETTLE_S / 3)
        os.utime("in/a.mrc", ns=(turn, turn))
    assert watcher.seen == []
    assert watcher.result().exit_code == 0 and watcher.told == [("a.mrc", "done")]


def test_files_that_vanish_are_forgotten(here, checkpoint):
    come("in/a.mrc", "in/b.mrc")
    watcher = Watcher(checkpoint, "in", settle_s=0.5)
    Path("in/a.mrc").unlink()
    result = watcher.result()
    assert watcher.told == [("b.mrc", "done")] and result.exit_code == 0


def test_a_folder_that_vanishes_and_comes_back_is_watched_on(here, checkpoint):
    come("in/a.mrc")
    watcher = Watcher(checkpoint, "in", star=Path("out.star"), idle_exit_s=1.5)
    watcher.until(lambda: len(watcher.seen) == 1)
    Path("in").rename("away")
    time.sleep(0.2)
    come("in/b.mrc")
    assert watcher.result().exit_code == 0
    assert watcher.told == [("a.mrc", "done"), ("b.mrc", "done")]
    names = image_table(read_star("out.star")).block.column("rlnMicrographName")
    assert names == ["out/a.mrc", "out/b.mrc"], "the raw file may be moved away; the denoised one stays listed"


def test_a_failed_file_is_tried_again_only_when_it_changed(here, checkpoint):
    Path("in").mkdir()
    Path("in/a.mrc").write_bytes(bytes(range(256)) * 10)
    watcher = Watcher(checkpoint, "in", idle_exit_s=1.2)
    watcher.until(lambda: len(watcher.seen) == 1)
    time.sleep(0.5)
    assert watcher.told == [("a.mrc", "failed")]
    come("in/a.mrc")
    result = watcher.result()
    assert watcher.told == [("a.mrc", "failed"), ("a.mrc", "done")]
    assert result.exit_code == 0 and [item.status for item in result.files] == ["done"]
    statuses = [json.loads(line)["status"] for line in Path("out/denoise.jsonl").read_text().splitlines()]
    assert statuses == ["failed", "done"]


def test_a_failed_file_is_tried_again_when_only_the_kernel_knows_that_it_changed(here, checkpoint):
    # A transfer that sets size and time first, or somebody who gives the permission that was lacking.
    come("whole.mrc")
    Path("in").mkdir()
    Path("in/a.mrc").write_bytes(b"\xff" * Path("whole.mrc").stat().st_size)
    os.utime("in/a.mrc", ns=(5, 5))
    watcher = Watcher(checkpoint, "in", idle_exit_s=1.2)
    watcher.until(lambda: len(watcher.seen) == 1)
    Path("in/a.mrc").write_bytes(Path("whole.mrc").read_bytes())
    os.utime("in/a.mrc", ns=(5, 5))
    assert watcher.result().exit_code == 0
    assert watcher.told == [("a.mrc", "failed"), ("a.mrc", "done")]


def test_a_micrograph_that_is_written_anew_after_it_was_done_is_done_again(here, checkpoint):
    # What looked complete, such as a file that got its full length first, was not.
    come("in/a.mrc", "in/bb.mrc")
    watcher = Watcher(checkpoint, "in", star=Path("out.star"), idle_exit_s=1.5)
    watcher.until(lambda: len(watcher.seen) == 2)
    time.sleep(0.2)
    write_mrc(Path("in/a.mrc"), pixels(77))
    os.utime("in/bb.mrc", ns=(Path("in/bb.mrc").stat().st_mtime_ns,) * 2)  # changed for the kernel, not for us
    assert watcher.result().exit_code == 0
    assert watcher.told == [("a.mrc", "done"), ("bb.mrc", "done"), ("a.mrc", "done")]
    wanted = Denoiser.from_checkpoint(checkpoint, device="cpu", threads=1).denoise(pixels(77))
    assert np.allclose(mrcfile.read("out/a.mrc"), wanted, rtol=0, atol=1e-4)
    assert len(image_table(read_star("out.star")).block.rows) == 2
    assert_nothing_is_left_over()


def test_a_micrograph_that_comes_again_with_another_pixel_size_has_it_in_the_star_file(here, checkpoint):
    write_mrc(Path("a.mrc"), pixels(1), pixel_size_angstrom=1.5)
    watcher = Watcher(checkpoint, "a.mrc", star=Path("out.star"), idle_exit_s=1.5)
    watcher.until(lambda: Path("out.star").exists())
    time.sleep(0.2)
    write_mrc(Path("a.mrc"), pixels(2), pixel_size_angstrom=2.5)
    assert watcher.result().exit_code == 0
    assert watcher.told == [("a.mrc", "done")] * 2
    assert image_table(read_star("out.star")).pixel_sizes == [2.5]


def test_of_many_finished_ones_a_few_are_looked_at_again_at_a_time(here, checkpoint, monkeypatch):
    monkeypatch.setattr(watch, "LOOKED_AT_AGAIN", 2)
    names = [f"in/{letter}.mrc" for letter in "abcdefg"]
    come(*names)
    watcher = Watcher(checkpoint, "in", idle_exit_s=2.5)
    watcher.until(lambda: len(watcher.seen) == 7)
    for name in names:
        write_mrc(Path(name), pixels(78))
    assert watcher.result().exit_code == 0
    assert sorted(watcher.told) == sorted([(Path(name).name, "done") for name in names] * 2)


def test_what_never_came_or_was_never_completed_is_named_at_the_end(here, checkpoint):
    come("in/a.mrc", "in/b.mrc")
    Path("in/b.mrc").write_bytes(Path("in/b.mrc").read_bytes()[:-100])
    result = Watcher(checkpoint, "in", "named.mrc").result()
    assert result.exit_code == 3
    told = {item.input.name: item.message for item in result.failed}
    assert sorted(told) == ["b.mrc", "named.mrc"]
    assert "still lacks 100 bytes" in told["b.mrc"] and "never came" in told["named.mrc"]


def test_nothing_at_all_is_no_failure(here, checkpoint):
    result = Watcher(checkpoint, "*.mrc", idle_exit_s=0.1).result()
    assert result.exit_code == 0 and result.files == ()


def test_a_file_that_must_stand_still_is_waited_for_however_slow_the_machine_is(here, checkpoint, monkeypatch):
    real = watch.Watch._look

    def slow(self):
        found = real(self)
        time.sleep(0.4)  # longer than --idle-exit
        return found

    monkeypatch.setattr(watch.Watch, "_look", slow)
    Path("in").mkdir()
    come("in/a.mrc")
    assert [item.status for item in Watcher(checkpoint, "in", idle_exit_s=0.3, settle_s=0.5).result().files] == ["done"]


def test_a_growing_star_file_is_followed_and_the_output_star_grows_with_it(here, checkpoint):
    watcher = Watcher(checkpoint, "in.star", star=Path("out.star"), idle_exit_s=2)
    time.sleep(0.2)
    rows = []
    for name in ("one", "three", "fours"):
        come(f"mics/{name}.mrc")
        rows.append(f"mics/{name}.mrc 1\n")
        Path("in.star").write_text(STAR_HEAD + "".join(rows)[:-3])  # half written: a row that is too short
        time.sleep(0.1)
        Path("in.star").write_text(STAR_HEAD + "".join(rows))
        watcher.until(
            lambda: Path("out.star").exists() and len(image_table(read_star("out.star")).block.rows) == len(rows)
        )
    # The program that writes it may also order it anew.
    Path("in.star").write_text(STAR_HEAD + "".join(reversed(rows)))
    assert watcher.result().exit_code == 0
    table = image_table(read_star("out.star")).block
    assert table.column("cryoplugMicrographNameRaw") == [row.split()[0] for row in reversed(rows)]
    assert table.column("rlnMicrographName") == [f"out/mics/{name}.mrc" for name in ("fours", "three", "one")]
    assert len(watcher.seen) == 3


def test_a_star_file_may_name_micrographs_that_are_still_to_come(here, checkpoint):
    Path("in.star").write_text(STAR_HEAD + "mics/a.mrc 1\nmics/b.mrc 1\n")
    watcher = Watcher(checkpoint, "in.star", star=Path("out.star"))
    time.sleep(0.2)
    come("mics/b.mrc")
    result = watcher.result()
    assert result.exit_code == 3 and [item.input.name for item in result.failed] == ["a.mrc"]
    assert result.details["left_out"] == ["mics/a.mrc"]
    assert image_table(read_star("out.star")).block.column("rlnMicrographName") == ["out/mics/b.mrc"]


def test_names_that_come_later_and_collide_do_not_move_what_is_done(here, checkpoint):
    come("one/a.mrc")
    watcher = Watcher(checkpoint, "one", "two", idle_exit_s=1.0)
    watcher.until(lambda: len(watcher.seen) == 1)
    come("two/a.mrc", "one/b.mrc")
    assert watcher.result().exit_code == 0
    assert sorted(str(path.relative_to("out")) for path in Path("out").rglob("*.mrc")) == [
        "a.mrc",
        "b.mrc",
        "two/a.mrc",
    ]


def test_a_second_watch_skips_what_is_finished_at_once(here, checkpoint):
    come("in/a.mrc")
    Watcher(checkpoint, "in", idle_exit_s=0.3).result()
    come("in/bb.mrc")
    watcher = Watcher(checkpoint, "in", settle_s=0.6)
    watcher.until(lambda: len(watcher.seen) >= 1)
    assert watcher.told[0] == ("a.mrc", "skipped")
    assert watcher.result().exit_code == 0
    assert watcher.told == [("a.mrc", "skipped"), ("bb.mrc", "done")]


def test_results_within_the_watched_folder_are_not_denoised_again(here, checkpoint):
    come("a.mrc")
    watcher = Watcher(checkpoint, ".", idle_exit_s=0.8)
    assert watcher.result().exit_code == 0
    assert watcher.told == [("a.mrc", "done")]


def test_an_input_is_never_overwritten_and_the_others_go_on(here, checkpoint):
    come("in/a.mrc")
    Path("out").mkdir()
    os.link("in/a.mrc", "out/a.mrc")
    before = Path("in/a.mrc").read_bytes()
    come("in/bb.mrc")
    result = Watcher(checkpoint, "in", overwrite=True).result()
    assert result.exit_code == 3 and "inputs are never overwritten" in result.failed[0].message
    assert Path("in/a.mrc").read_bytes() == before and Path("out/bb.mrc").exists()


def test_a_gpu_that_is_not_there_is_told_before_anything_comes(here, checkpoint):
    with pytest.raises(DeviceError, match="cuda:99"):
        Watcher(checkpoint, "in", device="cuda:99").result()


def test_a_signal_ends_the_watch_with_everything_written(here, checkpoint):
    come("in/a.mrc")
    request = DenoiseRequest(
        ("in",), checkpoint, Path("out"), Path("out.star"), device="cpu", watch=True, poll_s=30, settle_s=0
    )

    def progress(result: FileResult) -> None:
        os.kill(os.getpid(), signal.SIGTERM)

    began = time.monotonic()
    with pytest.raises(Stopped, match="1 of 1 micrographs are finished") as caught:
        denoise(request, progress)
    assert caught.value.exit_code == 143 and time.monotonic() - began < 20
    assert len(image_table(read_star("out.star")).block.rows) == 1
    assert_nothing_is_left_over()


def test_the_command_watches_until_sigterm_and_lives_through_sigusr1(here, checkpoint, warm_start):
    Path("in").mkdir()
    arguments = ["denoise", "in", "--checkpoint", str(checkpoint), "-o", "out", "--star", "out.star", "--watch"]
    child = warm_start.start(*arguments, "--poll", "0.1", "--settle", "0.2", "--device", "cpu")
    try:
        for name in ("in/a.mrc", "in/bb.mrc"):
            come(name)
            deadline = time.monotonic() + 60
            while not (Path("out") / Path(name).name).exists():
                assert child.poll() is None and time.monotonic() < deadline, child.communicate()
                time.sleep(0.05)
            if name == "in/a.mrc":
                child.send_signal(signal.SIGUSR1)
        child.send_signal(signal.SIGTERM)
        _, talk = child.communicate(timeout=60)
    finally:
        child.kill()
    assert child.returncode == 143, talk
    assert "finished micrographs are on the disk already; going on" in talk
    assert "stopped by SIGTERM: " in talk and "Traceback" not in talk
    assert_nothing_is_left_over()


@pytest.mark.parametrize(
    ("cut", "missing"),
    [(0, 1), (1000, 24), (1024, 4 * 6300), (1024 + 4 * 6300, 0)],
    ids=["empty", "head", "data", "all"],
)
def test_the_bytes_that_a_header_promises_are_counted(here, cut, missing):
    come("a.mrc")
    Path("a.mrc").write_bytes(Path("a.mrc").read_bytes()[:cut])
    assert missing_bytes(Path("a.mrc")) == missing


def test_a_header_without_sense_is_left_to_its_reader(here):
    Path("a.mrc").write_bytes(b"\xff" * 5000)
    Path("b.tif").write_bytes(b"II*\0")
    assert missing_bytes(Path("a.mrc")) == missing_bytes(Path("b.tif")) == missing_bytes(Path("gone.mrc")) == 0
