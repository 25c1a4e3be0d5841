"""Previews and the page of a run: there after it, made good when missing, and gone when they would lie."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from urllib.parse import unquote

import numpy as np
import pytest
from PIL import Image

from cryoplug.cli.main import run as command_line
from cryoplug.errors import StorageError, UsageError
from cryoplug.formats.mrc import write_mrc
from cryoplug.models.checkpoint import Checkpoint, save_checkpoint
from cryoplug.models.registry import model_spec
from cryoplug.outputs import previews as previews_module
from cryoplug.workflows.denoise import DenoiseRequest, denoise


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    weights = {name: tensor.numpy() for name, tensor in model_spec("cryo_cnn").build(seed=1).state_dict().items()}
    folder = tmp_path_factory.mktemp("checkpoints") / "run" / "epoch_0001"
    save_checkpoint(folder, Checkpoint("cryo_cnn", weights, normalize="zscore"), 0.5)
    return folder.parent


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(2)
    for name in ("mics/a.mrc", "mics/sub/b.mrc", "mics/<script>alert(1)</script>.mrc"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        write_mrc(path, rng.normal(5, 1, (96, 120)).astype(np.float32), pixel_size_angstrom=2.0)
    return tmp_path


def request(checkpoint: Path, *inputs: str, **others: object) -> DenoiseRequest:
    given = {"inputs": inputs or ("mics/**/*.mrc",), "checkpoint": checkpoint, "output": Path("out"), "device": "cpu"}
    return DenoiseRequest(**{**given, **others})  # type: ignore[arg-type]


def page_data(path: Path) -> dict:
    (text,) = re.findall(r'<script type="application/json" id="data">(.*?)</script>', path.read_text())
    return json.loads(text)


def test_each_micrograph_has_a_picture_and_the_run_a_page(here: Path, checkpoint: Path) -> None:
    result = denoise(request(checkpoint, "mics"))
    pictures = sorted(str(path) for path in Path("out/previews").rglob("*.jpg"))
    assert len(pictures) == len(result.files) == 3
    with Image.open("out/previews/a.jpg") as picture:
        assert picture.size == (3 * 120 + 12, 96 + 26)
    assert result.details["report"] == Path("out/report.html")
    data = page_data(Path("out/report.html"))
    assert len(data["table"]["rows"]) == 3
    assert all((Path("out") / unquote(address)).is_file() for address in data["pictures"])
    assert not list(Path("out").rglob("*partial*"))


def test_the_command_names_the_page_last_and_leaves_stdout_to_results(
    here: Path, checkpoint: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["denoise", "mics/a.mrc", "--checkpoint", str(checkpoint), "-o", "out", "--device", "cpu", "--json"]
    assert command_line(words) == 0
    out, err = capsys.readouterr()
    assert err.endswith(" denoise: open in a browser: out/report.html\n")
    assert [json.loads(line)["status"] for line in out.splitlines()] == ["done"]
    assert "thumbnails" not in out


def test_a_run_without_previews_leaves_neither_picture_nor_page_unless_it_is_named(
    here: Path, checkpoint: Path
) -> None:
    result = denoise(request(checkpoint, "mics/a.mrc", previews=False))
    assert "report" not in result.details
    assert sorted(os.listdir("out")) == [".cryoplug", "a.mrc", "denoise.jsonl"]
    denoise(request(checkpoint, "mics/a.mrc", previews=False, overwrite=True, report=Path("night.html")))
    assert page_data(Path("night.html"))["pictures"] == [None]
    assert sorted(os.listdir("out")) == [".cryoplug", "a.mrc", "denoise.jsonl"]


def test_pictures_that_are_missing_are_made_good_and_others_left(here: Path, checkpoint: Path) -> None:
    denoise(request(checkpoint))
    before = {path: path.stat().st_mtime_ns for path in Path("out/previews").rglob("*.jpg")}
    Path("out/previews/a.jpg").unlink()
    told: list[str] = []
    result = denoise(request(checkpoint), note=told.append)
    assert {item.status for item in result.files} == {"skipped"}
    after = {path: path.stat().st_mtime_ns for path in Path("out/previews").rglob("*.jpg")}
    assert [path for path in before if before[path] != after[path]] == [Path("out/previews/a.jpg")]
    assert any("previews of 1 finished micrograph are missing" in text for text in told)


def test_a_picture_of_an_older_result_does_not_stay(here: Path, checkpoint: Path) -> None:
    denoise(request(checkpoint, "mics/a.mrc"))
    old = Path("out/previews/a.jpg").read_bytes()
    write_mrc(Path("mics/a.mrc"), np.random.default_rng(9).normal(50, 9, (96, 120)).astype(np.float32))
    denoise(request(checkpoint, "mics/a.mrc"))
    assert Path("out/previews/a.jpg").read_bytes() != old
    denoise(request(checkpoint, "mics/a.mrc", overwrite=True, previews=False))
    assert not Path("out/previews/a.jpg").exists()


def test_a_later_run_shows_what_earlier_ones_measured(
    here: Path, checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    denoise(request(checkpoint, "mics/a.mrc"))
    (first,) = page_data(Path("out/report.html"))["table"]["rows"]
    monkeypatch.chdir(here / "mics")
    denoise(request(checkpoint, "a.mrc", "sub/b.mrc", output=Path("../out")))
    rows = page_data(here / "out/report.html")["table"]["rows"]
    assert rows[0][2:7] == first[2:7]
    assert len(rows) == 2


def test_a_raw_file_that_went_costs_the_picture_alone(
    here: Path, checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = previews_module.thumbnail_of

    def gone(source: object) -> object:
        if source.path == Path("mics/a.mrc"):  # type: ignore[attr-defined]
            from cryoplug.errors import MissingInputError

            raise MissingInputError("mics/a.mrc: there is no such file")
        return real(source)  # type: ignore[arg-type]

    monkeypatch.setattr(previews_module, "thumbnail_of", gone)
    result = denoise(request(checkpoint))
    assert {item.status for item in result.files} == {"done"}
    assert "no preview: mics/a.mrc" in next(item.message for item in result.files if item.input.name == "a.mrc")
    assert not Path("out/previews/a.jpg").exists()
    assert len(list(Path("out/previews").rglob("*.jpg"))) == 2


def test_a_disk_that_refuses_the_picture_ends_the_run_and_the_next_one_goes_on(here: Path, checkpoint: Path) -> None:
    Path("out").mkdir()
    Path("out/previews").write_text("a file in the way")
    with pytest.raises(StorageError, match="previews"):
        denoise(request(checkpoint, "mics/a.mrc"))
    Path("out/previews").unlink()
    result = denoise(request(checkpoint, "mics/a.mrc"))
    assert [item.status for item in result.files] == ["done"]
    assert Path("out/previews/a.jpg").is_file()


@pytest.mark.parametrize("name", ["mics/a.mrc", "page.txt", "page"])
def test_a_page_has_the_ending_of_a_page(name: str, checkpoint: Path) -> None:
    with pytest.raises(UsageError, match=r"--report .* ends in \.html"):
        request(checkpoint, report=Path(name))


def test_stacks_show_their_first_section(here: Path, checkpoint: Path) -> None:
    import mrcfile

    pixels = np.random.default_rng(3).normal(0, 1, (6, 64, 64)).astype(np.float32)
    with mrcfile.new("mics/p.mrcs") as file:
        file.set_data(pixels)
    denoise(request(checkpoint, "mics/p.mrcs"))
    with Image.open("out/previews/p.mrcs.jpg") as picture:
        assert picture.size == (3 * 64 + 12, 64 + 26)


def test_the_live_page_is_there_while_it_watches_and_the_whole_one_after(
    here: Path, checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from cryoplug.workflows.denoise import page as page_module

    monkeypatch.setattr(page_module, "REFRESH_S", 0.0)
    monkeypatch.setattr(page_module, "_SHARE", 0)
    seen: list[dict] = []

    def progress(result: object) -> None:
        if Path("live.html").exists():
            seen.append(page_data(Path("live.html")))

    Path("mics/late.mrc").write_bytes(Path("mics/a.mrc").read_bytes()[:-100])
    result = denoise(
        request(checkpoint, "mics", watch=True, poll_s=0.05, settle_s=0.1, idle_exit_s=0.6, report=Path("live.html")),
        progress=progress,
    )
    assert sum(item.status == "done" for item in result.files) >= 2
    assert seen
    assert all(data["live"] is not None for data in seen)
    last = page_data(Path("live.html"))
    assert last["live"] is None
    assert len(last["table"]["rows"]) == len(result.files)
    assert last["base"] == "./out/"


def test_a_live_page_does_not_grow_with_the_run(tmp_path: Path) -> None:
    from cryoplug.inference.messages import DenoiseResult
    from cryoplug.workflows.denoise import page as page_module
    from cryoplug.workflows.denoise.previews import Previews

    folder = tmp_path / "out"
    previews = Previews(folder, wanted=True, halves=False, stated_angstrom=None)
    page = page_module.RunPage(tmp_path / "live.html", folder, previews, {}, checkpoint="x")
    sizes = []
    for count in (300, 3000):
        for index in range(count):
            failed = index % 3 == 0
            result = DenoiseResult(Path(f"{index:06d}.mrc"), "failed" if failed else "done", message="x" * failed)
            page.take(folder / f"{count}-{index}.mrc", result)
        page._written_at = -1e9
        page.show_live([])
        sizes.append((tmp_path / "live.html").stat().st_size)
    assert sizes[1] < 1.05 * sizes[0]
    assert "1,100 failed" in (tmp_path / "live.html").read_text()


def test_the_page_of_a_merge_shows_what_the_shards_measured(here: Path, checkpoint: Path) -> None:
    words = ["denoise", "mics/a.mrc", "mics/sub/b.mrc", "--checkpoint", str(checkpoint), "-o", "out", "--device", "cpu"]
    for shard in ("0/2", "1/2"):
        assert command_line([*words, "--shard", shard]) in (0, 4)
    assert not Path("out/report.html").exists()
    assert command_line(["merge", "out"]) == 0
    rows = page_data(Path("out/report.html"))["table"]["rows"]
    assert len(rows) == 2
    assert all(row[3] is not None for row in rows)
