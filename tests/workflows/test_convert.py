from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from cryoplug.cli.convert import convert as command
from cryoplug.core.noise import founding_noise, patch_rng
from cryoplug.errors import MissingInputError, OutputBusyError, PairingError, StorageError, UsageError
from cryoplug.formats.mrc_writer import MrcRowWriter, write_mrc
from cryoplug.formats.registry import open_micrograph
from cryoplug.store.pairs import open_store
from cryoplug.store.raw import RawWriter
from cryoplug.store.writer import StoreWriter
from cryoplug.workflows.convert import ConvertRequest, convert
from cryoplug.workflows.convert import run as run_module
from cryoplug.workflows.convert.run import pick_test_micrographs

PATCH, STRIDE = 64, 32
SHAPE = (150, 200)
GRID = [(y, x) for y in (0, 32, 64) for x in (0, 32, 64, 96, 128)]
BINS = ("noisy_train.bin", "clean_train.bin", "noisy_test.bin", "clean_test.bin")


def write(path: Path, pixels: np.ndarray, pixel_size: float = 1.5) -> Path:
    write_mrc(path, pixels.astype(np.float32), pixel_size_angstrom=pixel_size)
    return path


def image(seed: int, shape: tuple[int, int] = SHAPE) -> np.ndarray:
    return np.random.default_rng(seed).normal(50, 12, shape).astype(np.float32)


def half(exposure: int, side: int, shape: tuple[int, int] = SHAPE) -> np.ndarray:
    """Blobs that belong to the exposure, and noise of this half alone."""
    signal = np.random.default_rng(exposure).normal(0, 60, shape).astype(np.float32)
    for axis in (0, 1):
        signal = sum(np.roll(signal, k, axis) for k in range(-3, 4)) / 7
    return 50 + signal + np.random.default_rng([exposure, side]).normal(0, 12, shape).astype(np.float32)


def folder_of(path: Path, count: int, *, name: str = "mic_{}.mrc", first: int = 0) -> Path:
    for i in range(count):
        write(path / name.format(i), image(first + i))
    return path


def request(inputs, output: Path, **changes) -> ConvertRequest:
    inputs = tuple(str(item) for item in ([inputs] if isinstance(inputs, Path) else inputs))
    return ConvertRequest(inputs, output, **{"patch_size": PATCH, "stride": STRIDE, **changes})


def content(folder: Path) -> dict[str, bytes]:
    return {name: (folder / name).read_bytes() for name in BINS if (folder / name).exists()}


def patches(folder: Path, name: str, dtype: str = "<f4") -> np.ndarray:
    return np.fromfile(folder / name, dtype).reshape(-1, PATCH, PATCH)


def names(folder: Path) -> set[str]:
    return {item.name for item in folder.iterdir()}


def test_the_founding_recipe_is_followed_to_the_bit(tmp_path):
    path = write(tmp_path / "a.mrc", image(1))
    result = convert(request(path, tmp_path / "s", seed=5))
    assert result.exit_code == 0
    pixels = image(1)
    scale = np.percentile(pixels[pixels > 0], 95)
    expected = np.clip(pixels / np.float32(scale), 0, 1)
    noisy, clean = patches(tmp_path / "s", "noisy_train.bin"), patches(tmp_path / "s", "clean_train.bin")
    assert len(clean) == len(GRID)
    for k, (y, x) in enumerate(GRID):
        np.testing.assert_allclose(clean[k], expected[y : y + PATCH, x : x + PATCH], rtol=0, atol=1e-6)
        np.testing.assert_array_equal(noisy[k], founding_noise(clean[k], patch_rng(5, 0, y, x)))
    with open_store(tmp_path / "s") as store:
        assert store.manifest.windows["train"] == tuple((0, y, x) for y, x in GRID)
        (entry,) = store.manifest.micrographs
        assert (entry.name, entry.shape, entry.pixel_size_angstrom) == ("a.mrc", SHAPE, 1.5)
        assert entry.normalization["scale"] == pytest.approx(scale, rel=1e-6)


@pytest.mark.parametrize("stride", [1, 17, 64, 90, 500])
def test_every_grid_position_holds_its_own_pixels(tmp_path, stride):
    pixels = np.arange(80 * 90, dtype=np.float32).reshape(80, 90) + 1
    path = write(tmp_path / "a.mrc", pixels)
    convert(request(path, tmp_path / "s", patch_size=33, stride=stride, threads=3))
    clean = np.fromfile(tmp_path / "s" / "clean_train.bin", "<f4").reshape(-1, 33, 33)
    scale = np.float32(np.percentile(pixels, 95))
    grid = [(y, x) for y in range(0, 80 - 33 + 1, stride) for x in range(0, 90 - 33 + 1, stride)]
    assert len(clean) == len(grid)
    for patch, (y, x) in zip(clean, grid, strict=True):
        np.testing.assert_allclose(patch, np.clip(pixels[y : y + 33, x : x + 33] / scale, 0, 1), rtol=1e-6)


@pytest.mark.parametrize("format", ["bin", "hdf5"])
def test_the_result_does_not_depend_on_the_number_of_threads(tmp_path, format):
    folder = folder_of(tmp_path / "in", 3)
    prints = {
        convert(request(folder, tmp_path / f"s{threads}", threads=threads, format=format)).details["fingerprint"]
        for threads in (1, 2, 5)
    }
    assert len(prints) == 1


def test_both_formats_hold_the_same_pairs(tmp_path):
    folder = folder_of(tmp_path / "in", 2)
    one = convert(request(folder, tmp_path / "a"))
    two = convert(request(folder, tmp_path / "b", format="hdf5"))
    three = convert(request(folder, tmp_path / "c.h5", format="hdf5"))
    assert one.details["fingerprint"] == two.details["fingerprint"] == three.details["fingerprint"]
    assert names(tmp_path / "b") == {"dataset.h5"}
    assert names(tmp_path / "a") == {"dataset.json", *BINS}


def test_float16_is_the_float32_store_rounded(tmp_path):
    folder = folder_of(tmp_path / "in", 1)
    convert(request(folder, tmp_path / "a"))
    convert(request(folder, tmp_path / "b", dtype="float16"))
    for name in BINS[:2]:
        half = patches(tmp_path / "b", name, "<f2")
        np.testing.assert_array_equal(half, patches(tmp_path / "a", name).astype(np.float16))


def test_zscore_noise_is_the_recipe_on_six_sigma(tmp_path):
    path = write(tmp_path / "a.mrc", image(1) - 6802)
    convert(request(path, tmp_path / "s", normalize="zscore"))
    noisy, clean = patches(tmp_path / "s", "noisy_train.bin"), patches(tmp_path / "s", "clean_train.bin")
    assert abs(float(clean.mean())) < 0.05
    assert float(clean.std()) == pytest.approx(1, abs=0.05)
    assert min(noisy.min(), clean.min()) >= -3
    assert max(noisy.max(), clean.max()) <= 3
    middle = np.abs(clean) < 0.5
    expected = 6 * np.sqrt(0.5 / 100 + 0.05**2)
    assert float((noisy - clean)[middle].std()) == pytest.approx(expected, rel=0.05)


def test_patches_of_a_micrograph_are_all_on_one_side(tmp_path):
    convert(request(folder_of(tmp_path / "in", 6), tmp_path / "s", test_split=0.3, seed=2))
    with open_store(tmp_path / "s") as store:
        sides = {split: {store.micrograph_of(i, split) for i in range(store.count(split))} for split in store.splits}
        assert (len(sides["train"]), len(sides["test"])) == (4, 2)
        assert not sides["train"] & sides["test"]
        assert all(store.manifest.micrographs[i].split == split for split, side in sides.items() for i in side)


def test_the_split_is_a_pure_function_and_leaves_both_sides_something():
    assert pick_test_micrographs(100, 0.1, 7) == pick_test_micrographs(100, 0.1, 7)
    assert pick_test_micrographs(100, 0.1, 7) != pick_test_micrographs(100, 0.1, 8)
    sizes = {(n, f): len(pick_test_micrographs(n, f, 0)) for n in (1, 2, 5, 100) for f in (0.0, 0.1, 0.99, 1.0)}
    assert [sizes[n, 0.0] for n in (1, 2, 5, 100)] == [0, 0, 0, 0]
    assert [sizes[n, 0.1] for n in (1, 2, 5, 100)] == [0, 1, 1, 10]
    assert [sizes[n, 0.99] for n in (1, 2, 5, 100)] == [0, 1, 4, 99]
    assert [sizes[n, 1.0] for n in (1, 2, 5, 100)] == [1, 2, 5, 100]


def test_halves_go_even_to_noisy_and_odd_to_clean_each_by_its_own_numbers(tmp_path):
    for i in range(2):
        write(tmp_path / "even" / f"m{i}_EVN.mrc", half(i, 0))
        write(tmp_path / "odd" / f"m{i}_ODD.mrc", 3 * half(i, 1))
    result = convert(
        request((), tmp_path / "s", pairs="halves", even=(f"{tmp_path}/even",), odd=(f"{tmp_path}/odd",), test_split=0)
    )
    assert result.exit_code == 0
    with open_store(tmp_path / "s") as store:
        assert store.manifest.normalize == "zscore"
        entries = store.manifest.micrographs
        assert [(e.name, e.clean_name) for e in entries] == [("m0_EVN.mrc", "m0_ODD.mrc"), ("m1_EVN.mrc", "m1_ODD.mrc")]
    for name, which, factor in (("noisy_train.bin", 0, 1), ("clean_train.bin", 1, 3)):
        pixels = factor * half(0, which)
        side = "normalization" if name[0] == "n" else "clean_normalization"
        numbers = getattr(entries[0], side)
        expected = (pixels[:PATCH, :PATCH] - numbers["offset"]) / numbers["scale"]
        np.testing.assert_allclose(patches(tmp_path / "s", name)[0], expected, atol=1e-5)
        assert numbers["scale"] == pytest.approx(pixels.std(), rel=0.01)


def test_clean_files_are_found_by_name_whatever_the_order(tmp_path):
    for i in range(3):
        write(tmp_path / "n" / f"m{i}.mrc", half(i, 0))
        write(tmp_path / "c" / f"clean_m{i}.mrc", half(i, 1))
    clean = tuple(str(tmp_path / "c" / f"clean_m{i}.mrc") for i in (2, 0, 1))
    convert(request(tmp_path / "n", tmp_path / "s", pairs="clean", clean=clean))
    with open_store(tmp_path / "s") as store:
        assert {(e.name, e.clean_name) for e in store.manifest.micrographs} == {
            (f"m{i}.mrc", f"clean_m{i}.mrc") for i in range(3)
        }


def test_files_without_common_names_are_paired_in_order_and_it_is_said(tmp_path):
    noisy = [write(tmp_path / f"{name}.mrc", half(i, 0)) for i, name in enumerate(("x", "y"))]
    clean = tuple(str(write(tmp_path / f"{name}.mrc", half(i, 1))) for i, name in enumerate(("p", "q")))
    result = convert(request(noisy, tmp_path / "s", pairs="clean", clean=clean))
    assert "paired by its place in the list" in result.files[0].message
    with pytest.raises(PairingError, match="2 noisy but 1 clean"):
        convert(request(noisy, tmp_path / "t", pairs="clean", clean=clean[:1]))


def test_a_missing_partner_is_listed_and_nothing_is_written(tmp_path):
    noisy = folder_of(tmp_path / "n", 3)
    clean = folder_of(tmp_path / "c", 2)
    with pytest.raises(PairingError, match=r"1 noisy: .*mic_2\.mrc"):
        convert(request(noisy, tmp_path / "s", pairs="clean", clean=(str(clean),)))
    assert not (tmp_path / "s").exists()


def test_a_file_is_never_its_own_partner(tmp_path):
    folder = folder_of(tmp_path / "n", 2)
    with pytest.raises(PairingError, match="both sides"):
        convert(request(folder, tmp_path / "s", pairs="clean", clean=(str(folder),)))


def test_partners_of_different_shape_or_pixel_size_fail_and_others_go_on(tmp_path):
    for i in range(4):
        write(tmp_path / "n" / f"mic_{i}.mrc", half(i, 0))
    write(tmp_path / "c" / "mic_0.mrc", half(0, 1))
    write(tmp_path / "c" / "mic_1.mrc", half(1, 1, (100, 200)))
    write(tmp_path / "c" / "mic_2.mrc", half(2, 1), pixel_size=3.0)
    write(tmp_path / "c" / "mic_3.mrc", half(0, 1))
    result = convert(request(tmp_path / "n", tmp_path / "s", pairs="clean", clean=(f"{tmp_path}/c",), test_split=0))
    assert [item.status for item in result.files] == ["done", "failed", "failed", "failed"]
    assert "mic_3.mrc do not belong together: correlation at low resolution" in result.files[3].message
    assert "(150, 200) but" in result.files[1].message
    assert "pixel size 1.5 angstrom but" in result.files[2].message
    assert result.exit_code == 3


def bad_inputs(folder: Path) -> Path:
    folder_of(folder, 2)
    write(folder / "mic_const.mrc", np.full(SHAPE, 3.0))
    spoiled = image(3)
    spoiled[140, 150] = np.nan
    write(folder / "mic_nan.mrc", spoiled)
    write(folder / "mic_small.mrc", image(4, (63, 200)))
    cut = write(folder / "mic_cut.mrc", image(5))
    os.truncate(cut, 5000)
    (folder / "mic_text.mrc").write_text("hello")
    return folder


def test_bad_micrographs_are_named_and_the_others_are_done(tmp_path):
    folder = bad_inputs(tmp_path / "in")
    seen = []
    result = convert(request([folder, folder / "gone.mrc"], tmp_path / "s", test_split=0), seen.append)
    assert tuple(seen) == result.files
    message = {item.input.name: item.message for item in result.failed}
    assert set(message) == {"mic_const.mrc", "mic_nan.mrc", "mic_small.mrc", "mic_cut.mrc", "mic_text.mrc", "gone.mrc"}
    assert all(name in text for name, text in message.items())
    assert "smaller than one patch of 64x64; give --patch-size 63 or less" in message["mic_small.mrc"]
    assert "NaN" in message["mic_nan.mrc"]
    assert result.exit_code == 3
    good = folder_of(tmp_path / "good", 2)
    assert convert(request(good, tmp_path / "t", test_split=0)).details["train"] == result.details["train"]
    assert [f.name for f in open_store(tmp_path / "s").manifest.failures] == [
        item.input.name for item in result.failed
    ]  # fmt: skip


def test_a_file_that_breaks_in_the_middle_leaves_none_of_its_patches(tmp_path, monkeypatch):
    folder = folder_of(tmp_path / "in", 3)
    convert(request(folder, tmp_path / "t", test_split=0))
    real = run_module.patch_pairs

    def breaking(opened, *rest, **options):
        for k, item in enumerate(real(opened, *rest, **options)):
            if opened.pair.index == 1 and k == 7:
                raise StorageError("mic_1.mrc: input/output error")
            yield item

    monkeypatch.setattr(run_module, "patch_pairs", breaking)
    result = convert(request(folder, tmp_path / "s", test_split=0))
    assert [item.status for item in result.files] == ["done", "failed", "done"]
    expected = patches(tmp_path / "t", "noisy_train.bin")
    kept = np.concatenate([expected[: len(GRID)], expected[2 * len(GRID) :]])
    np.testing.assert_array_equal(patches(tmp_path / "s", "noisy_train.bin"), kept)
    with open_store(tmp_path / "s") as store:
        assert store.verify() == []


@pytest.mark.parametrize("format", ["bin", "hdf5"])
def test_when_no_input_is_usable_nothing_is_left(tmp_path, format):
    path = write(tmp_path / "a.mrc", np.ones(SHAPE))
    result = convert(request(path, tmp_path / "s", format=format))
    assert result.exit_code == 4
    assert names(tmp_path / "s") == set()


@pytest.mark.parametrize("format", ["bin", "hdf5"])
def test_the_same_request_finds_its_store_complete_and_another_is_refused(tmp_path, format):
    folder = bad_inputs(tmp_path / "in")
    asked = request(folder, tmp_path / "s", format=format)
    first = convert(asked)
    state = {item: item.stat().st_mtime_ns for item in (tmp_path / "s").iterdir()}
    second = convert(asked)
    assert {item: item.stat().st_mtime_ns for item in (tmp_path / "s").iterdir()} == state
    assert {item.status for item in second.files} == {"skipped", "failed"}
    assert second.exit_code == first.exit_code == 3
    assert second.details["complete"]
    assert second.details["fingerprint"] == first.details["fingerprint"]
    with pytest.raises(UsageError, match="made with other seed, stride; give --overwrite"):
        convert(request(folder, tmp_path / "s", format=format, seed=1, stride=40))
    write(folder / "mic_9.mrc", image(9))
    with pytest.raises(UsageError, match="made with other inputs"):
        convert(asked)
    third = convert(request(folder, tmp_path / "s", format=format, overwrite=True))
    assert third.details["micrographs"] == 3
    assert convert(asked).details["fingerprint"] == third.details["fingerprint"]


def test_foreign_files_in_the_output_are_not_replaced_without_being_asked(tmp_path):
    path = write(tmp_path / "a.mrc", image(1))
    (tmp_path / "s").mkdir()
    (tmp_path / "s" / "noisy_train.bin").write_bytes(b"precious")
    with pytest.raises(UsageError, match=r"noisy_train\.bin: exists already"):
        convert(request(path, tmp_path / "s"))
    assert (tmp_path / "s" / "noisy_train.bin").read_bytes() == b"precious"
    convert(request(path, tmp_path / "h", format="hdf5"))
    for overwrite in (False, True):
        with pytest.raises(UsageError, match="a store of the other format"):
            convert(request(path, tmp_path / "h", overwrite=overwrite))
    (tmp_path / "j").mkdir()
    (tmp_path / "j" / "dataset.json").write_text("{}")
    with pytest.raises(UsageError, match="it is in the way: give --overwrite"):
        convert(request(path, tmp_path / "j"))


def test_an_input_is_never_the_output(tmp_path):
    path = write(tmp_path / "in" / "dataset.h5.mrc", image(1))
    path = path.rename(tmp_path / "in" / "dataset.h5")
    before = path.read_bytes()
    for overwrite in (False, True):
        with pytest.raises(UsageError, match="would be overwritten"):
            convert(request(path, tmp_path / "in", format="hdf5", overwrite=overwrite))
    assert path.read_bytes() == before


def test_a_full_disk_ends_the_run_and_the_next_one_goes_on(tmp_path, monkeypatch):
    folder = folder_of(tmp_path / "in", 4)
    convert(request(folder, tmp_path / "t"))
    real, left = os.pwrite, [70]

    def full(*arguments):
        left[0] -= 1
        if left[0] < 0:
            raise OSError(28, "No space left on device")
        return real(*arguments)

    with monkeypatch.context() as patched:
        patched.setattr(os, "pwrite", full)
        with pytest.raises(StorageError, match="No space left on device") as caught:
            convert(request(folder, tmp_path / "s"))
    assert caught.value.exit_code == 5
    assert all(name.endswith(".cryoplug-partial") for name in names(tmp_path / "s"))
    result = convert(request(folder, tmp_path / "s"))
    assert [item.status for item in result.files] == ["skipped", "skipped", "done", "done"]
    assert content(tmp_path / "s") == content(tmp_path / "t")


RUN = "import sys; from cryoplug.cli.convert import convert; convert(sys.argv[1:])"


def start(*arguments: object) -> subprocess.Popen:
    return subprocess.Popen([sys.executable, "-c", RUN, *map(str, arguments)], stderr=subprocess.DEVNULL)


def acknowledged(folder: Path) -> int:
    journal = folder / ".dataset.json.cryoplug-partial"
    return journal.read_bytes().count(b'"entry"') if journal.exists() else 0


@pytest.mark.parametrize("format", ["bin", "hdf5"])
def test_killed_twice_the_same_command_gives_the_same_bytes(tmp_path, format):
    shape = (1100, 1100)
    for i in range(5):
        write(tmp_path / "in" / f"m{i}.mrc", image(i, shape))
    options = (tmp_path / "in", "--patch-size", 256, "--stride", 128, "--format", format)
    assert start(*options, "-o", tmp_path / "t").wait(timeout=120) == 0
    for goal in (1, 3):
        run = start(*options, "-o", tmp_path / "s")
        partial = tmp_path / "s" / ".dataset.h5.cryoplug-partial"
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline and run.poll() is None:
            if format == "bin" and acknowledged(tmp_path / "s") >= goal:
                break
            if format == "hdf5" and partial.exists() and partial.stat().st_size > goal * 10_000_000:
                break
            time.sleep(0.002)
        run.send_signal(signal.SIGKILL)
        assert run.wait() == -signal.SIGKILL
        assert all(name.endswith(".cryoplug-partial") for name in names(tmp_path / "s"))
    assert start(*options, "-o", tmp_path / "s").wait(timeout=120) == 0
    if format == "bin":
        assert content(tmp_path / "s") == content(tmp_path / "t")
    assert names(tmp_path / "s") == names(tmp_path / "t")
    with open_store(tmp_path / "s") as one, open_store(tmp_path / "t") as two:
        assert one.manifest == two.manifest
        assert one.verify() == []


def wait_for_acknowledged(run: subprocess.Popen, folder: Path, goal: int) -> None:
    deadline = time.monotonic() + 60
    while acknowledged(folder) < goal and run.poll() is None and time.monotonic() < deadline:
        time.sleep(0.002)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_stops_between_two_patches_and_the_same_command_goes_on(tmp_path, number):
    for i in range(6):
        write(tmp_path / "in" / f"m{i}.mrc", image(i, (1100, 1100)))
    options = ("-m", "cryoplug", "convert", tmp_path / "in", "--patch-size", 256, "--stride", 128, "-o")
    command = [sys.executable, *map(str, options)]
    subprocess.run([*command, str(tmp_path / "t")], check=True, capture_output=True)
    run = subprocess.Popen([*command, str(tmp_path / "s")], stderr=subprocess.PIPE, text=True)
    wait_for_acknowledged(run, tmp_path / "s", 2)
    run.send_signal(number)
    began = time.monotonic()
    said = run.communicate(timeout=60)[1]
    assert time.monotonic() - began < 5
    assert run.returncode == 128 + number
    done = acknowledged(tmp_path / "s")
    assert 2 <= done < 6
    assert (
        f"stopped by {number.name}: {done} of 6 micrographs are safe in {tmp_path}/s; the same command goes on" in said
    )
    assert "Traceback" not in said
    assert all(name.endswith(".cryoplug-partial") and "lock" not in name for name in names(tmp_path / "s"))
    again = subprocess.run([*command, str(tmp_path / "s"), "--json"], check=True, capture_output=True, text=True)
    assert [json.loads(line).get("status") for line in again.stdout.splitlines()][:6].count("skipped") == done
    assert content(tmp_path / "s") == content(tmp_path / "t")


def test_the_warning_signal_makes_safe_what_is_complete_and_the_work_goes_on(tmp_path, monkeypatch):
    folder = folder_of(tmp_path / "in", 4)
    convert(request(folder, tmp_path / "t"))
    settled = []
    real = RawWriter.settle

    def settle(writer: RawWriter) -> None:
        real(writer)
        settled.append((len(writer.acknowledged), acknowledged(tmp_path / "s")))

    monkeypatch.setattr(RawWriter, "settle", settle)
    result = convert(request(folder, tmp_path / "s"), lambda item: os.kill(os.getpid(), signal.SIGUSR1))
    assert [item.status for item in result.files] == ["done"] * 4
    assert settled == [(1, 1), (2, 2), (3, 3)]
    assert content(tmp_path / "s") == content(tmp_path / "t")


def test_a_live_convert_is_not_disturbed_and_a_dead_one_is_followed(tmp_path):
    for i in range(3):
        write(tmp_path / "in" / f"m{i}.mrc", image(i, (1100, 1100)))
    options = (tmp_path / "in", "--patch-size", 256, "--stride", 16, "-o", tmp_path / "s")
    first = start(*options)
    lock = tmp_path / "s" / ".dataset.lock.cryoplug-partial"
    try:
        while not (lock.exists() and lock.stat().st_size) and first.poll() is None:
            time.sleep(0.002)
        first.send_signal(signal.SIGSTOP)
        with pytest.raises(OutputBusyError, match=f"s: in use by process {first.pid} on ") as caught:
            convert(request(tmp_path / "in", tmp_path / "s", patch_size=256, stride=128))
        assert caught.value.exit_code == 8
    finally:
        first.kill()
        first.wait()
    assert lock.exists()
    assert convert(request(tmp_path / "in", tmp_path / "s", patch_size=256, stride=128)).exit_code == 0
    assert not lock.exists()


def test_an_interrupted_convert_of_a_changed_input_starts_again(tmp_path, monkeypatch):
    folder = folder_of(tmp_path / "in", 3)

    def stopped(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(StoreWriter, "finish", lambda *_, **__: stopped())
        convert(request(folder, tmp_path / "s"))
    assert acknowledged(tmp_path / "s") == 3
    (folder / "mic_1.mrc").unlink()
    write(folder / "mic_1.mrc", image(77))
    convert(request(folder, tmp_path / "s"))
    convert(request(folder, tmp_path / "t"))
    assert content(tmp_path / "s") == content(tmp_path / "t")


MEASURE = """
import resource, sys
import cryoplug.cli.convert, cryoplug.workflows.convert, h5py
def peak(): return int(next(l for l in open("/proc/self/status") if l.startswith("VmHWM")).split()[1]) / 1024
before = peak()
cryoplug.cli.convert.convert(sys.argv[1:], standalone_mode=False)
print(peak() - before)
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads Linux's own count of memory")
@pytest.mark.parametrize("format", ["bin", "hdf5"])
def test_memory_does_not_grow_with_the_micrograph(tmp_path, format):
    wide = tmp_path / "wide.mrc"
    with open(wide, "wb") as stream:
        writer = MrcRowWriter(stream, (9000, 6000), template=None, pixel_size_angstrom=1.0, label="test")
        for y in range(0, 9000, 500):
            writer.write_rows(np.random.default_rng(y).random((500, 6000), np.float32))
        writer.finish()
    command = [sys.executable, "-c", MEASURE, str(wide), "-o", str(tmp_path / "s"), "--stride", "4000"]
    ended = subprocess.run([*command, "--format", format], capture_output=True, text=True, check=True)
    assert float(ended.stdout.split()[-1]) < 400


def run(*arguments: object):
    return CliRunner().invoke(command, [str(item) for item in arguments])


def test_the_command_writes_one_json_line_a_file_and_a_summary(tmp_path):
    folder = bad_inputs(tmp_path / "in")
    ended = run(folder, "-o", tmp_path / "s", "--patch_size", 64, "--stride=32", "--json")
    lines = [json.loads(line) for line in ended.stdout.splitlines()]
    assert ended.exit_code == 3
    assert [line["status"] for line in lines[:-1]].count("failed") == 5
    assert lines[-1]["store"] == str(tmp_path / "s")
    assert lines[-1]["train"] + lines[-1]["test"] == 2 * len(GRID)
    assert "mic_nan.mrc: failed" in ended.stderr


def test_the_command_says_where_the_store_is_and_that_it_is_complete(tmp_path):
    folder = folder_of(tmp_path / "in", 2)
    options = (folder, "-o", tmp_path / "s", "--patch-size", 64, "--stride", 32)
    first, second = run(*options), run(*options)
    assert f"{tmp_path}/s: 15 training and 15 test pairs" in first.stdout
    assert (first.exit_code, second.exit_code) == (0, 0)
    assert "already complete" in second.stdout
    refused = run(*options, "--seed", 3)
    assert isinstance(refused.exception, UsageError)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"inputs": ()}, "--pairs noise needs INPUT"),
        ({"clean": ("x",)}, "--pairs noise does not use --clean"),
        ({"pairs": "clean"}, "--pairs clean needs --clean"),
        ({"pairs": "halves", "inputs": (), "even": ("x",)}, "--pairs halves needs --odd"),
        ({"pairs": "halves", "even": ("x",), "odd": ("y",)}, "--pairs halves takes INPUT (movies, or"),
        ({"pairs": "halves", "inputs": ()}, "--pairs halves needs INPUT"),
        ({"pairs": "noise", "gain": Path("g.mrc")}, "--pairs noise does not use --gain"),
        (
            {"pairs": "halves", "inputs": (), "even": ("x",), "odd": ("y",), "defects": Path("d.txt")},
            "--pairs halves with --even and --odd does not use --defects",
        ),
        ({"pairs": "magic"}, "--pairs 'magic' (allowed: noise, clean, halves"),
        ({"dtype": "float64"}, "--dtype is 'float64'"),
        ({"patch_size": 0, "stride": 0}, "--patch-size 0 (allowed: 1 or more); --stride 0"),
        ({"test_split": float("nan")}, "--test-split is nan"),
        ({"seed": -1}, "--seed is -1"),
        ({"output": Path("x.h5")}, "give a folder, or --format hdf5"),
    ],
)
def test_a_wrong_request_says_everything_at_once(tmp_path, changes, message):
    with pytest.raises(UsageError) as caught:
        ConvertRequest(**{"inputs": ("a.mrc",), "output": tmp_path, **changes})
    assert message in str(caught.value)


def test_real_halves_become_pairs_that_share_their_signal(tmp_path, shared_data):
    folder = shared_data / "halves_apoferritin"
    result = convert(
        ConvertRequest(
            (), tmp_path, pairs="halves", even=(f"{folder}/*_EVN.mrc",), odd=(f"{folder}/*_ODD.mrc",), patch_size=512
        )
    )
    assert (result.exit_code, result.details["train"], result.details["test"]) == (0, 3 * 9, 9)
    assert result.details["stride"] == 256, "half a patch"
    with open_store(tmp_path) as store:
        noisy, clean = (np.empty((1, 512, 512), np.float32) for _ in range(2))
        for index in (0, store.count() - 1):
            store.read([index], noisy, clean)
            micrograph, y, x = store.manifest.windows["train"][index]
            entry = store.manifest.micrographs[micrograph]
            raw = []
            for name in (entry.name, entry.clean_name):
                with open_micrograph(folder / name) as source:
                    raw.append(source.read_rows(y, y + 512)[:, x : x + 512].ravel())
            shared = np.corrcoef(noisy.ravel(), clean.ravel())[0, 1]
            assert shared == pytest.approx(np.corrcoef(*raw)[0, 1], abs=1e-3)
            assert shared > 0.005


def test_a_pattern_that_matches_nothing_is_an_error(tmp_path):
    with pytest.raises(MissingInputError):
        convert(request([tmp_path / "no*.mrc"], tmp_path / "s"))
