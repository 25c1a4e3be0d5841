"""Denoise while micrographs are being taken, night after night, and call people when something is wrong.

    python service.py krios1.toml

It runs ``cryoplug denoise --watch --json`` on the folder of the night, reads its records, and keeps a tally. When the folder
has been quiet for a while, it looks which night it is, and begins anew. Python's standard library is all that it needs.
"""

from __future__ import annotations

import datetime
import json
import queue
import signal
import subprocess
import sys
import threading
import time
import tomllib
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import IO, Any

from alerts import Alerts, meaning
from tally import Tally

import disk

EXIT_USAGE = 2
EXIT_SOME_FAILED = 3
LONGEST_PAUSE_S = 1800.0
"""Between two tries, where something is wrong that may end by itself."""
LAST_WORDS = 10
"""Lines of cryoplug's own words in an alert."""
SHOWN = 10
"""Failed micrographs that an alert names."""


@dataclass(frozen=True)
class Settings:
    """What krios1.toml says; the names are its keys."""

    micrographs: str
    """Folder, pattern or STAR file of a night; ``%Y-%m-%d`` is the day on which the night began."""
    output: str
    """Folder of a night for what is denoised; its last part is a date such as ``%Y-%m-%d``."""
    options: tuple[str, ...] = ()
    """Further options of cryoplug denoise; dates are filled in there, too."""
    command: tuple[str, ...] = ("cryoplug", "denoise")
    """The program."""
    night_begins_at: int = 12
    """Hour of the day. What is taken before belongs to the night before."""
    quiet_s: float = 900.0
    """A folder in which nothing has happened for so long may be left for the one of the next night."""
    alert: tuple[str, ...] = ()
    """Command that gets the words of an alert on its standard input."""
    alert_as_json: bool = False
    """Give it ``{"text": words}`` instead."""
    alert_after_failed: int = 5
    """So many failed micrographs are an alert while cryoplug still runs."""
    tally_every_s: float = 300.0
    """Seconds between two lines of the tally."""
    disk_budget: str | None = None
    """What all nights together may take, such as ``2TB``; the oldest ones lose their results first."""
    disk_every_s: float = 600.0
    """Seconds between two looks at the disk."""
    keep_previews_nights: int | None = None
    """How many nights pictures are kept; left out: for ever."""
    keep_micrographs_nights: int | None = None
    """How many nights denoised micrographs are kept."""
    retry_s: float = 60.0
    """Pause after an error, doubled each time, up to half an hour."""

    @classmethod
    def read(cls, path: Path) -> Settings:
        """Read a file.

        Raises
        ------
        ValueError
            It says something that is not known, or lacks something.
        """
        found: dict[str, Any] = tomllib.loads(path.read_text(encoding="utf-8"))
        known = {item.name for item in fields(cls)}
        if unknown := sorted(found.keys() - known):
            raise ValueError(f"{', '.join(unknown)}: not known (allowed: {', '.join(sorted(known))})")
        if missing := sorted({"micrographs", "output"} - found.keys()):
            raise ValueError(f"{', '.join(missing)}: missing")
        settings = cls(**{key: tuple(value) if isinstance(value, list) else value for key, value in found.items()})
        if "%" in str(Path(settings.output).parent):
            raise ValueError(
                f"output {settings.output}: only the last part may be a date, as in /data/denoised/%Y-%m-%d"
            )
        if settings.disk_budget is not None:
            disk.bytes_of(settings.disk_budget)
        return settings


def night_of(moment: datetime.datetime, begins_at: int) -> datetime.date:
    """Give the day on which the night of a moment began."""
    return (moment - datetime.timedelta(hours=begins_at)).date()


class Service:
    """The loop; `run` ends when it is asked to, or when only a person can help."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._alerts = Alerts(settings.alert, as_json=settings.alert_as_json)
        self._said = ""
        self._stop = 0
        self._child: subprocess.Popen[str] | None = None
        self._last_words: deque[str] = deque(maxlen=LAST_WORDS)

    def run(self) -> int:
        """Work until a signal comes; give the exit code."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._asked_to_end)
        tally, pause_s = Tally(""), 0.0
        while not self._stop:
            night = night_of(datetime.datetime.now(), self._settings.night_begins_at)
            if tally.night != night.isoformat():
                tally = Tally(night.isoformat())
            if not self._has_room(night):
                self._pause(self._settings.disk_every_s)
                continue
            code = self._watch(night, tally)
            self._say(tally)
            if self._stop:
                break
            if code in (0, EXIT_SOME_FAILED):
                self._tell_failed(tally)
                pause_s = 0.0
                continue
            words = "\n".join([f"{tally.night}: cryoplug ended with {code}: {meaning(code)}", *self._last_words])
            self._alerts.send((night, code), words)
            if code == EXIT_USAGE:
                return code
            pause_s = min(2 * pause_s, LONGEST_PAUSE_S) or self._settings.retry_s
            self._pause(pause_s)
        return 128 + self._stop

    def _watch(self, night: datetime.date, tally: Tally) -> int:
        """Run cryoplug on the folder of a night until that is quiet; give its exit code."""
        settings, output = self._settings, self._output(night)
        places = [night.strftime(settings.micrographs), "--output", str(output)]
        watching = ["--watch", "--idle-exit", f"{settings.quiet_s:g}", "--json"]
        command = [*settings.command, *places, *watching, *(night.strftime(option) for option in settings.options)]
        print("runs:", " ".join(command), flush=True)
        self._last_words.clear()
        try:
            self._child = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        except OSError as error:
            self._last_words.append(str(error))
            return EXIT_USAGE
        if self._stop:  # a signal between two children
            self._child.terminate()
        records: queue.Queue[str | None] = queue.Queue()
        assert self._child.stdout is not None and self._child.stderr is not None
        threads = [
            threading.Thread(target=_read, args=(self._child.stdout, records.put)),
            threading.Thread(target=_read, args=(self._child.stderr, self._heard)),
        ]
        for thread in threads:
            thread.start()
        told, looked, has_room = time.monotonic(), time.monotonic(), True
        for record in _until_end(records):
            if record is not None:
                tally.take(record)
                self._tell_many_failed(tally)
            if record is not None or time.monotonic() - told > settings.tally_every_s:
                tally.write(output / "tally.json")
            if time.monotonic() - told > settings.tally_every_s:
                self._say(tally)
                told = time.monotonic()
            if time.monotonic() - looked > settings.disk_every_s:
                looked, has_room = time.monotonic(), self._has_room(night)
                if not has_room:
                    self._child.terminate()
        for thread in threads:
            thread.join()
        code = self._child.wait()
        return code if has_room else 0

    def _has_room(self, night: datetime.date) -> bool:
        """Let old nights go as the settings say; tell whether the disk budget holds."""
        settings, pattern = self._settings, Path(self._settings.output).absolute()
        kept = {"previews": settings.keep_previews_nights, "micrographs": settings.keep_micrographs_nights}
        for words in disk.rotate(pattern, night, **kept):
            print(words, flush=True)
        if settings.disk_budget is None:
            return True
        budget = disk.bytes_of(settings.disk_budget)
        for words in disk.make_room(pattern, budget, never=[self._output(night)]):
            print(words, flush=True)
        used = sum(disk.used_bytes(folder) for _, folder in disk.nights(pattern))
        if used > budget:
            words = f"{used / 1e9:.1f} GB in {pattern.parent} are more than the disk budget of {settings.disk_budget}"
            self._alerts.send(
                "disk budget", f"{words}, and this night may not lose its results; denoising waits for room"
            )
        return used <= budget

    def _tell_many_failed(self, tally: Tally) -> None:
        if len(tally.failed) >= self._settings.alert_after_failed:
            self._alerts.send((tally.night, "many failed"), _failures(tally), (tally.night, frozenset(tally.failed)))

    def _tell_failed(self, tally: Tally) -> None:
        if tally.failed:
            self._alerts.send((tally.night, frozenset(tally.failed)), _failures(tally))

    def _say(self, tally: Tally) -> None:
        if tally.line() != self._said:
            self._said = tally.line()
            print(self._said, flush=True)

    def _output(self, night: datetime.date) -> Path:
        return Path(night.strftime(self._settings.output)).absolute()

    def _heard(self, line: str | None) -> None:
        if line is not None:
            self._last_words.append(line)
            print(line, file=sys.stderr, flush=True)

    def _asked_to_end(self, number: int, _frame: object) -> None:
        self._stop = number
        if self._child is not None and self._child.poll() is None:
            self._child.terminate()

    def _pause(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        while not self._stop and time.monotonic() < end:
            time.sleep(min(1.0, seconds))


def _failures(tally: Tally) -> str:
    shown = [f"{name}: {why.removeprefix(f'{name}: ')}" for name, why in list(tally.failed.items())[:SHOWN]]
    more = [f"and {len(tally.failed) - SHOWN} more"] if len(tally.failed) > SHOWN else []
    return "\n".join([tally.line(), *shown, *more])


def _read(stream: IO[str], give: Callable[[str | None], object]) -> None:
    for line in stream:
        give(line.rstrip("\n"))
    give(None)


def _until_end(lines: queue.Queue[str | None]) -> Iterator[Mapping[str, Any] | None]:
    """Give each record as it comes, and None every second; end with the stream."""
    while True:
        try:
            line = lines.get(timeout=1.0)
        except queue.Empty:
            yield None
            continue
        if line is None:
            return
        try:
            record = json.loads(line)
        except ValueError:
            print(f"no record: {line}", file=sys.stderr, flush=True)
            continue
        yield record


def main() -> int:
    if len(sys.argv) != 2:
        print("usage: service.py SETTINGS.toml", file=sys.stderr)
        return EXIT_USAGE
    try:
        settings = Settings.read(Path(sys.argv[1]))
    except (OSError, ValueError, TypeError) as error:
        print(f"{sys.argv[1]}: {error}", file=sys.stderr)
        return EXIT_USAGE
    return Service(settings).run()


if __name__ == "__main__":
    sys.exit(main())
