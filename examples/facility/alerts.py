"""Alerts: what an exit code of cryoplug means, and a command of yours that gets the words."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Hashable, Sequence

MEANINGS = {
    1: "an unexpected failure; run it with --debug",
    2: "wrong options; nothing will change by itself",
    3: "some micrographs failed",
    4: "no usable input or checkpoint",
    5: "storage: full, read-only, no permission, or an error of the disk",
    7: "memory or GPU",
    8: "the output folder belongs to another live run",
}
"""Exit codes of ``cryoplug denoise``."""
AGAIN_AFTER_S = 6 * 3600.0
"""The same alert is not sent again before so many seconds."""
TIMEOUT_S = 60.0


def meaning(code: int) -> str:
    """Say what an exit code means; negative ones are signals, as `subprocess` gives them."""
    if code < 0:
        return f"killed by signal {-code}" + (", often because memory ran out" if code == -9 else "")
    if code > 128:
        return f"stopped by signal {code - 128}"
    return MEANINGS.get(code, "an exit code that is not known")


class Alerts:
    """Sends words to people through a command, such as mail, and each alert once.

    Parameters
    ----------
    command
        Program and arguments; it reads the words from its standard input. Empty: alerts are only printed.
    as_json
        Give it ``{"text": words}`` instead, as web hooks of chat programs want it.
    """

    def __init__(self, command: Sequence[str], *, as_json: bool = False) -> None:
        self._command = list(command)
        self._as_json = as_json
        self._sent: dict[Hashable, float] = {}

    def send(self, key: Hashable, words: str, *also: Hashable) -> None:
        """Send words, unless this was said lately; what goes wrong on the way is printed, and never ends the service.

        Parameters
        ----------
        key
            What the alert is about; the same thing is not said twice within `AGAIN_AFTER_S`.
        words
            A few lines for people.
        also
            What is said by the same words, too.
        """
        now = time.monotonic()
        if key in self._sent and now - self._sent[key] < AGAIN_AFTER_S:
            return
        self._sent |= dict.fromkeys((key, *also), now)
        print(f"ALERT {words}", flush=True)
        if not self._command:
            return
        payload = json.dumps({"text": words}) if self._as_json else words + "\n"
        try:
            done = subprocess.run(
                self._command, input=payload, text=True, capture_output=True, check=False, timeout=TIMEOUT_S
            )
            problem = f"exit code {done.returncode}: {done.stderr.strip()}" if done.returncode else ""
        except (OSError, subprocess.TimeoutExpired) as error:
            problem = str(error)
        if problem:
            print(f"the alert could not be sent by {self._command[0]} ({problem})", file=sys.stderr, flush=True)
