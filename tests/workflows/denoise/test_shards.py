"""Laws of shards: disjoint, complete, stable; each goes on alone; and what `merge` joins is what one run writes."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import mrcfile
import numpy as np
import pytest

from cryoplug.core.results import BatchResult
from cryoplug.core.shard import Shard
from cryoplug.errors import InputError, StorageError, UsageError
from cryoplug.machine.launch import shard_of_launcher
from cryoplug.workflows.denoise import merge
from cryoplug.workflows.denoise import work as denoise_work
from workflows.denoise.denoising import go, micrographs, pixels

NAMES = "abcdefghi"


@pytest.mark.parametrize("count", [1, 2, 3, 5, 8])
def test_every_name_is_in_one_shard_and_stays_there(count: int) -> None:
    names = [f"Movies/mic_{number:05d}.mrc" for number in range(400)]
    shards = [Shard(index, count) for index in range(count)]
    owners = {name: [shard for shard in shards if shard.has(name)] for name in names}
    assert all(len(owner) == 1 for owner in owners.values())
    sizes = [sum(shard.has(name) for name in names) for shard in shards]
    assert min(sizes) > 0.6 * len(names) / count


@pytest.mark.parametrize("text", ["4/4", "1", "-1/2", "a/b", "1/0", "", "1/2/3", "0,5/2"])
def test_a_shard_that_is_none_is_refused_with_what_is_allowed(text: str) -> None:
    with pytest.raises(UsageError, match=r"--shard .*I/N with I from 0 to N - 1"):
        Shard.parse(text)


def test_slurm_and_torchrun_say_which_shard_a_process_is() -> None:
    array = {"SLURM_ARRAY_TASK_ID": "5", "SLURM_ARRAY_TASK_COUNT": "3", "SLURM_ARRAY_TASK_MIN": "1"}
    array["SLURM_ARRAY_TASK_STEP"] = "2"
    task = {"SLURM_PROCID": "1", "SLURM_NTASKS": "4"}
    assert shard_of_launcher({}) is None
    assert shard_of_launcher(array) == (Shard(2, 3), "SLURM_ARRAY_TASK_ID")
    assert shard_of_launcher({**array, **task}) == (Shard(2, 3), "SLURM_ARRAY_TASK_ID")
    assert shard_of_launcher(task) == (Shard(1, 4), "SLURM_PROCID")
    assert shard_of_launcher({**task, "SLURM_JOB_ID": "7", "SLURM_STEP_ID": "0"}) == (Shard(1, 4), "SLURM_PROCID")
    assert shard_of_launcher({"RANK": "1", "WORLD_SIZE": "2"}) == (Shard(1, 2), "RANK")
    assert shard_of_launcher({"RANK": "0", "WORLD_SIZE": "1"}) is None
    with pytest.raises(UsageError, match="SLURM_PROCID=4, SLURM_NTASKS=4: contradict"):
        shard_of_launcher({"SLURM_PROCID": "4", "SLURM_NTASKS": "4"})


def test_a_batch_script_of_several_tasks_runs_once_and_so_takes_all() -> None:
    assert shard_of_launcher({"SLURM_JOB_ID": "7", "SLURM_PROCID": "0", "SLURM_NTASKS": "4"}) is None


def lists(here: Path, kind: str) -> tuple[list[object], int]:
    """Give the inputs of one kind, and how many micrographs they are."""
    folder = here / "Movies with spaces"
    folder.mkdir()
    if kind == "stack":
        with mrcfile.new(here / "stack.mrcs") as stack:
            stack.set_data(np.stack([pixels(seed) for seed in range(5)]))
            stack.set_image_stack()
            stack.voxel_size = 1.25
        return [Path("stack.mrcs")], 1
    micrographs(folder, NAMES)
    if kind == "folder":
        return [Path(folder.name)], len(NAMES)
    if kind == "files":
        return [Path(folder.name) / f"{name}.mrc" for name in NAMES], len(NAMES)
    rows = "\n".join(f'"{folder.name}/{name}.mrc" 1' for name in NAMES)
    optics = "data_optics\n\nloop_\n_rlnOpticsGroup #1\n_rlnMicrographPixelSize #2\n1 1.25\n"
    (here / "list.star").write_text(
        f"{optics}\ndata_micrographs\n\nloop_\n_rlnMicrographName #1\n_rlnOpticsGroup #2\n{rows}\n"
    )
    return [Path("list.star")], len(NAMES)


def lines(folder: Path) -> list[str]:
    return [str(json.loads(line)["input"]) for line in (folder / "denoise.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("kind", ["folder", "files", "star", "stack"])
def test_merged_shards_are_what_one_run_writes(here: Path, checkpoints: tuple[Path, Path], kind: str) -> None:
    inputs, count = lists(here, kind)
    parts = [
        go(checkpoints[0], *inputs, output="parts", star=Path("parts.star"), shard=Shard(index, 3))
        for index in range(3)
    ]
    assert sum(len(part.files) for part in parts) == count
    assert not Path("parts.star").exists(), "a shard knows nothing of the others"
    assert all(part.exit_code == 0 for part in parts)
    merged = merge(Path("parts"))
    whole = go(checkpoints[0], *inputs, output="whole", star=Path("whole.star"))
    assert [item.input for item in merged.files] == [item.input for item in whole.files]
    assert {item.status for item in merged.files} == {"skipped"}
    for one, two in zip(merged.files, whole.files, strict=True):
        assert one.output is not None and two.output is not None
        assert one.output.read_bytes()[1024:] == two.output.read_bytes()[1024:]
    assert Path("parts.star").read_text().replace("parts/", "whole/") == Path("whole.star").read_text()
    assert sorted(lines(Path("parts"))) == sorted(lines(Path("whole"))), "one journal"
    assert not list(Path("parts").glob("denoise.shard*"))
    assert Path("parts/report.html").is_file(), "one page"
    again = merge(Path("parts"))
    assert again.exit_code == 0
    assert sorted(lines(Path("parts"))) == sorted(lines(Path("whole")))


def test_merge_refuses_when_a_shard_is_missing_or_unfinished(
    here: Path, checkpoints: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    micrographs(here, NAMES)
    inputs = [f"{name}.mrc" for name in NAMES]
    with pytest.raises(InputError, match="out: no shard wrote here"):
        merge(Path("out"))
    for index in (0, 2):
        go(checkpoints[0], *inputs, shard=Shard(index, 3), star=Path("out.star"))
    with pytest.raises(InputError, match=r"shard 1 of 3 did not run yet; run the same command with --shard 1/3"):
        merge(Path("out"))
    with monkeypatch.context() as broken, pytest.raises(StorageError):
        broken.setattr(denoise_work.Work, "finish", _full)
        go(checkpoints[0], *inputs, shard=Shard(1, 3), star=Path("out.star"))
    with pytest.raises(InputError, match=r"shard 1 of 3 did not come to the end"):
        merge(Path("out"))
    assert not Path("out.star").exists()
    done_before = {path.name for path in Path("out").glob("*.mrc")}
    resumed = go(checkpoints[0], *inputs, shard=Shard(1, 3), star=Path("out.star"))
    assert {path.name for path in Path("out").glob("*.mrc")} >= done_before
    assert resumed.exit_code == 0
    assert len(merge(Path("out")).files) == len(NAMES)
    micrographs(here, "z")
    shutil.rmtree("out/previews", ignore_errors=True)
    Path("out/a.mrc").unlink()
    with pytest.raises(InputError, match=r"1 of 9 micrographs are not denoised, first a\.mrc"):
        merge(Path("out"))


def _full(*_: object) -> None:
    raise StorageError("out: No space left on device")


def test_what_failed_in_a_shard_is_left_out_of_the_star_file_and_said(
    here: Path, checkpoints: tuple[Path, Path]
) -> None:
    paths = [path.name for path in micrographs(here, NAMES)]
    Path("d.mrc").write_bytes(Path("d.mrc").read_bytes()[:2000])
    for index in range(2):
        go(checkpoints[0], *paths, shard=Shard(index, 2), star=Path("out.star"))
    merged: BatchResult = merge(Path("out"))
    assert [str(item.input) for item in merged.failed] == ["d.mrc"]
    assert merged.exit_code == 3
    assert merged.details["left_out"] == ["d.mrc"]
    assert "d.mrc" not in Path("out.star").read_text()


def test_shards_of_different_commands_are_not_joined(here: Path, checkpoints: tuple[Path, Path]) -> None:
    paths = [path.name for path in micrographs(here, NAMES)]
    go(checkpoints[0], *paths, shard=Shard(0, 2))
    go(checkpoints[0], *paths, shard=Shard(1, 2), strength=0.5)
    with pytest.raises(InputError, match=r"shards 0/2 and 1/2 had different options \(strength\)"):
        merge(Path("out"))


def test_relative_names_hold_only_in_the_folder_where_the_shards_ran(
    here: Path, checkpoints: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = [path.name for path in micrographs(here, "a")]
    go(checkpoints[0], *paths, shard=Shard(0, 1))
    (here / "elsewhere").mkdir()
    monkeypatch.chdir(here / "elsewhere")
    with pytest.raises(UsageError, match=r"the shards ran in .*; change to that folder"):
        merge(here / "out")
