"""examples/facility/disk.py: old nights lose what can be made again, and nothing else is ever removed."""

from __future__ import annotations

import datetime
import json
from pathlib import Path
from types import ModuleType

import pytest

from facility.made_service import FACILITY

TODAY = datetime.date(2026, 11, 29)


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(FACILITY))
    import disk

    return disk


def night(folder: Path, name: str, *outputs: Path) -> Path:
    """Write what cryoplug leaves of a night: a micrograph of 5 kB, a picture of 1 kB, and the rest."""
    place = folder / name
    (place / "previews" / "deep").mkdir(parents=True)
    (place / "deep").mkdir()
    (place / "deep" / "a.mrc").write_bytes(bytes(5000))
    (place / "previews" / "deep" / "a.jpg").write_bytes(bytes(1000))
    for other in ("report.html", "micrographs.star", "tally.json", "mine.mrc", "previews/mine.png"):
        (place / other).write_text("x")
    lines = [{"status": "done", "output": str(path)} for path in (place / "deep" / "a.mrc", *outputs)]
    lines.append({"status": "failed", "output": None})
    (place / "denoise.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines) + '{"cut')
    return place


def left(place: Path) -> set[str]:
    return {path.name for path in place.rglob("*") if path.is_file()}


REST = {"report.html", "micrographs.star", "tally.json", "mine.mrc", "mine.png", "denoise.jsonl"}


def test_what_is_older_than_it_is_kept_goes_pictures_and_micrographs_by_themselves(
    tmp_path: Path, disk: ModuleType
) -> None:
    old, middle, new = (night(tmp_path, f"2026-11-{day}") for day in (10, 20, 29))
    said = list(disk.rotate(tmp_path / "%Y-%m-%d", TODAY, previews=5, micrographs=15))
    assert left(old) == REST and left(middle) == REST | {"a.mrc"} and left(new) == REST | {"a.mrc", "a.jpg"}
    assert [words.partition(";")[0].split(",")[0] for words in said] == [
        *("2026-11-10: pictures removed", "2026-11-10: denoised micrographs removed", "2026-11-20: pictures removed")
    ]
    assert not list(disk.rotate(tmp_path / "%Y-%m-%d", TODAY, previews=5, micrographs=15)), "said once"


def test_for_ever_is_for_ever(tmp_path: Path, disk: ModuleType) -> None:
    old = night(tmp_path, "1999-01-01")
    assert not list(disk.rotate(tmp_path / "%Y-%m-%d", TODAY, previews=None, micrographs=None))
    assert left(old) == REST | {"a.mrc", "a.jpg"}


def test_a_budget_takes_pictures_first_and_the_oldest_first_and_never_tonight(tmp_path: Path, disk: ModuleType) -> None:
    first, second, tonight = (night(tmp_path, f"2026-11-{day}") for day in (10, 20, 29))
    pattern, all_of_it = (
        tmp_path / "%Y-%m-%d",
        sum(disk.used_bytes(tmp_path / name.name) for name in tmp_path.iterdir()),
    )
    assert not list(disk.make_room(pattern, all_of_it, never=[tonight]))
    list(disk.make_room(pattern, all_of_it - 500, never=[tonight]))
    assert "a.jpg" not in left(first) and "a.jpg" in left(second)
    list(disk.make_room(pattern, all_of_it - 2500, never=[tonight]))
    assert left(first) == REST and left(second) == REST | {"a.mrc"}
    list(disk.make_room(pattern, 0, never=[tonight]))
    assert left(second) == REST and left(tonight) == REST | {"a.mrc", "a.jpg"}


def test_nothing_outside_and_nothing_foreign_is_removed(tmp_path: Path, disk: ModuleType) -> None:
    raw = tmp_path / "raw.mrc"
    raw.write_bytes(bytes(10))
    place = night(
        tmp_path, "2026-11-10", raw, Path("/"), Path("deep/a.mrc"), tmp_path / "2026-11-10" / ".." / "raw.mrc"
    )
    (place / "link.mrc").symlink_to(raw)
    with (place / "denoise.jsonl").open("a") as journal:
        journal.write("\n" + json.dumps({"status": "done", "output": str(place / "link.mrc")}))
    foreign = tmp_path / "2026-11-11"
    (foreign / "previews").mkdir(parents=True)
    (foreign / "previews" / "a.jpg").write_bytes(bytes(10))
    (tmp_path / "holiday").mkdir()
    list(disk.rotate(tmp_path / "%Y-%m-%d", TODAY, previews=1, micrographs=1))
    assert raw.exists() and (place / "link.mrc").is_symlink() and left(foreign) == {"a.jpg"}, "no journal, not ours"
    assert left(place) == REST | {"link.mrc"}


@pytest.mark.parametrize(("text", "size"), [("1kB", 1000), ("1.5GB", 1_500_000_000), ("2TB", 2 * 10**12)])
def test_amounts(disk: ModuleType, text: str, size: int) -> None:
    assert disk.bytes_of(text) == size
