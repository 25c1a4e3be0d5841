"""examples/facility/service.py: what it does with every end of cryoplug, and whom it calls."""

from __future__ import annotations

import dataclasses
import datetime
import json
import os
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from cryoplug.core.results import FileResult
from cryoplug.formats.mrc import write_mrc
from facility.made_service import BEGINS_AT, FACILITY, Facility, record, until


@pytest.fixture
def service(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(FACILITY))
    import service

    return service


def tonight() -> str:
    return (datetime.datetime.now() - datetime.timedelta(hours=BEGINS_AT)).date().isoformat()


@pytest.mark.parametrize(
    ("code", "meant"),
    [
        (1, "unexpected failure"),
        (4, "no usable input"),
        (5, "storage: full"),
        (7, "memory or GPU"),
        (8, "another live run"),
        (-9, "killed by signal 9, often because memory ran out"),
        (143, "stopped by signal 15"),
    ],
)
def test_an_error_is_told_with_its_meaning_and_last_words_and_tried_again(
    tmp_path: Path, code: int, meant: str
) -> None:
    facility = Facility(tmp_path)
    facility.turns({"code": code, "words": ["one", "cryoplug denoise: error: something"]}, {"code": 0})
    assert facility.run()[0] == 2
    assert len(facility.called) == 3, "again after the error, and again after the quiet night"
    first, last = facility.alerts
    assert meant in first and f"ended with {code}" in first and "cryoplug denoise: error: something" in first
    assert "wrong options" in last, "a mistake in the options ends the service: nothing changes by itself"


def test_the_same_error_is_told_once(tmp_path: Path) -> None:
    facility = Facility(tmp_path)
    facility.turns({"code": 5}, {"code": 5}, {"code": 5}, {"code": 7})
    facility.run()
    assert ["ended with 5" in words for words in facility.alerts] == [True, False, False]


def test_what_failed_is_named_once_and_again_when_more_fails(tmp_path: Path) -> None:
    facility = Facility(tmp_path)
    bad = [record("raw/b.mrc", "failed", "raw/b.mrc: no header"), record("raw/c.mrc", "failed", "cut")]
    facility.turns(
        {"code": 3, "records": [record("raw/a.mrc"), bad[0]]},
        {"code": 3, "records": [record("raw/a.mrc", "skipped"), bad[0]]},
        {"code": 3, "records": [record("raw/a.mrc", "skipped"), *bad]},
    )
    facility.run()
    first, second, _ = facility.alerts
    assert "1 finished, 1 failed" in first and "raw/b.mrc: no header\n" in first
    assert "1 finished, 2 failed" in second and "raw/c.mrc: cut\n" in second


def test_many_failures_are_told_while_cryoplug_still_runs(tmp_path: Path) -> None:
    facility = Facility(tmp_path, alert_after_failed=2)
    bad = [record(f"{number}.mrc", "failed", "cut") for number in range(2)]
    facility.turns({"records": bad, "waits": True})
    running = facility.start()
    until(lambda: bool(facility.alerts), running)
    assert facility.end(running)[0] == 143
    assert len(facility.alerts) == 1 and "0 finished, 2 failed" in facility.alerts[0]


def test_many_failures_are_not_told_again_at_the_end(tmp_path: Path) -> None:
    facility = Facility(tmp_path, alert_after_failed=2)
    bad = [record(f"{number}.mrc", "failed", "cut") for number in range(2)]
    facility.turns({"records": bad, "code": 3})
    facility.run()
    assert len(facility.alerts) == 2, "the failures, and the wrong options that end this test"


def test_a_signal_is_passed_on_and_ends_the_service(tmp_path: Path) -> None:
    facility = Facility(tmp_path)
    facility.turns({"records": [record("a.mrc")], "waits": True})
    running = facility.start()
    until((tmp_path / "waits").exists, running)
    code, out, _ = facility.end(running)
    assert code == 143 and "1 finished, 0 failed" in out and not facility.alerts


def test_each_night_has_folders_of_its_own_and_every_option_may_name_it(tmp_path: Path) -> None:
    facility = Facility(tmp_path, options=["--star", f"{tmp_path}/denoised/%Y-%m-%d/mics.star"], quiet_s=90)
    facility.run()
    night = tonight()
    assert facility.called[0] == [
        *(f"{tmp_path}/raw/{night}", "--output", f"{tmp_path}/denoised/{night}"),
        *("--watch", "--idle-exit", "90", "--json", "--star", f"{tmp_path}/denoised/{night}/mics.star"),
    ]


@pytest.mark.parametrize(
    ("hour", "begins_at", "day"), [(11, 12, 28), (12, 12, 29), (23, 12, 29), (0, 0, 29), (3, 5, 28)]
)
def test_a_night_begins_at_its_hour(service: ModuleType, hour: int, begins_at: int, day: int) -> None:
    assert service.night_of(datetime.datetime(2026, 11, 29, hour), begins_at) == datetime.date(2026, 11, day)


def test_the_tally_counts_each_micrograph_once_and_is_there_for_a_dashboard(tmp_path: Path) -> None:
    facility = Facility(tmp_path)
    star = {"star": "mics.star", "left_out": []}
    facility.turns(
        {"code": 3, "records": [record("a.mrc"), record("b.mrc", "failed", "cut"), star]},
        {"code": 0, "records": [record("a.mrc", "skipped"), record("b.mrc"), star]},
    )
    _, out, _ = facility.run()
    found = json.loads((tmp_path / "denoised" / tonight() / "tally.json").read_text())
    assert found == {
        **{"night": tonight(), "finished": 2, "failed": 0, "last_hour": 2, "seconds_each": 0.5, "failures": {}}
    }
    assert out.count(": 1 finished, 1 failed") == 2 and ": 2 finished, 0 failed, 2 in the last hour, 0.50 s each" in out


def test_a_web_hook_gets_json(tmp_path: Path) -> None:
    facility = Facility(tmp_path, alert_as_json=True)
    facility.run()
    (words,) = facility.alerts
    assert "wrong options" in json.loads(words)["text"]


@pytest.mark.parametrize("alert", [["no-such-program"], [sys.executable, "-c", "import sys; sys.exit('no network')"]])
def test_an_alert_that_cannot_be_sent_ends_nothing(tmp_path: Path, alert: list[str]) -> None:
    facility = Facility(tmp_path, alert=alert)
    facility.turns({"code": 5}, {"code": 0})
    code, out, err = facility.run()
    assert (code, len(facility.called)) == (2, 3)
    assert "the alert could not be sent" in err and out.count("ALERT") == 2
    assert "no network" in err or "no-such-program" in err


def test_a_program_that_is_not_there_ends_the_service(tmp_path: Path) -> None:
    code, _, _ = (facility := Facility(tmp_path, command=["no-such-program"])).run()
    assert code == 2 and "no-such-program" in facility.alerts[0]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"microgrphs": "x"}, "microgrphs: not known (allowed: alert"),
        ({"output": "/d/%Y/%m"}, "only the last part may be a date"),
        ({"disk_budget": "much"}, "allowed: an amount such as 500GB"),
    ],
)
def test_wrong_settings_are_named(tmp_path: Path, change: dict[str, str], said: str) -> None:
    code, out, err = Facility(tmp_path, **change).run()
    assert code == 2 and said in err and not out and "Traceback" not in err


def test_the_settings_that_come_along_are_understood(service: ModuleType) -> None:
    settings = service.Settings.read(FACILITY / "krios1.toml")
    assert settings.disk_budget == "2TB" and settings.alert_as_json


def test_the_page_shows_records_as_they_are() -> None:
    page = (FACILITY.parents[1] / "docs" / "facility.md").read_text(encoding="utf-8")
    shown = page.partition("```json\n")[2].partition("```")[0].splitlines()
    fields = [field.name for field in dataclasses.fields(FileResult)]
    wanted = ["type", "time", *fields, "finished", "total"]
    assert len(shown) == 2 and all(list(json.loads(line)) == wanted for line in shown)
    assert list(record("a")) == fields


def night_folder(facility: Facility, name: str, *, kB: int) -> Path:
    folder = facility.folder / "denoised" / name
    (folder / "previews").mkdir(parents=True)
    (folder / "a.mrc").write_bytes(bytes(kB * 1000))
    (folder / "previews" / "a.jpg").write_bytes(bytes(1000))
    (folder / "denoise.jsonl").write_text(json.dumps({"status": "done", "output": str(folder / "a.mrc")}) + "\n")
    return folder


def test_a_night_that_needs_more_than_the_budget_waits_for_room(tmp_path: Path) -> None:
    facility = Facility(tmp_path, disk_budget="50kB", disk_every_s=0.1)
    old, now = night_folder(facility, "2020-01-01", kB=30), night_folder(facility, tonight(), kB=60)
    running = facility.start()
    until(lambda: bool(facility.alerts), running)
    assert not (old / "a.mrc").exists() and (now / "a.mrc").exists()
    assert "more than the disk budget of 50kB" in facility.alerts[0] and not (tmp_path / "called").exists()
    facility.turns({"waits": True})
    (now / "a.mrc").unlink()
    until((tmp_path / "waits").exists, running)
    assert facility.end(running)[0] == 143
    assert len(facility.alerts) == 1 and (now / "denoise.jsonl").exists()


def test_cryoplug_is_stopped_when_the_budget_is_used_up_and_goes_on_when_there_is_room(tmp_path: Path) -> None:
    facility = Facility(tmp_path, disk_budget="50kB", disk_every_s=0.1)
    facility.turns({"waits": True}, {"waits": True})
    now = night_folder(facility, tonight(), kB=10)
    running = facility.start()
    until((tmp_path / "waits").exists, running)
    (tmp_path / "waits").unlink()
    (now / "b.mrc").write_bytes(bytes(60_000))
    until(lambda: bool(facility.alerts), running)
    (now / "b.mrc").unlink()
    until((tmp_path / "waits").exists, running)
    assert facility.end(running)[0] == 143
    assert len(facility.alerts) == 1 and "denoising waits for room" in facility.alerts[0]


@pytest.mark.slow
def test_it_denoises_with_the_real_cryoplug(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = str(FACILITY.parents[1])
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([root, *os.environ.get("PYTHONPATH", "").split(os.pathsep)]))
    command = [sys.executable, "-m", "cryoplug", "denoise"]
    facility = Facility(tmp_path, command=command, options=["--settle", "0", "--poll", "0.1", "--threads", "1"])
    night = tmp_path / "raw" / tonight()
    night.mkdir(parents=True)
    running = facility.start()
    for seed in range(2):
        pixels = np.random.default_rng(seed).normal(50, 4, (96, 96)).astype(np.float32)
        write_mrc(night / f"a mic {seed}.mrc", pixels, pixel_size_angstrom=2.6)
    tally = tmp_path / "denoised" / tonight() / "tally.json"
    until(lambda: tally.exists() and json.loads(tally.read_text())["finished"] == 2, running)
    code, _, err = facility.end(running)
    assert code == 143 and "stopped by SIGTERM" in err and not facility.alerts
    assert sorted(path.name for path in tally.parent.glob("*.mrc")) == ["a mic 0.mrc", "a mic 1.mrc"]
