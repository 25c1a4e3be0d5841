"""``python -m fuzz [--seconds N] [TARGET ...]``: each target in a process of its own, the time shared out among them."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from fuzz.targets import NAMES

_TALK = ("INFO:", "WARNING:", "###", '"')
"""What lines of libFuzzer begin with that tell nothing about cryoplug."""


def main() -> int:
    """Run the targets; give 1 when an input broke the promise of one of them."""
    parser = argparse.ArgumentParser(prog="python -m fuzz", description=__doc__)
    parser.add_argument("targets", nargs="*", metavar="TARGET", help=f"which ones (default: all): {', '.join(NAMES)}")
    parser.add_argument("--seconds", type=float, default=300.0, help="for all of them together (default: 300)")
    parser.add_argument(
        "--found", type=Path, default=Path("build/fuzz"), help="folder for inputs (default: build/fuzz)"
    )
    parser.add_argument("--replay", type=Path, metavar="FILE", help="run one saved input of the one TARGET")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="targets at once (default: processors)")
    options = parser.parse_args()
    unknown = sorted(set(options.targets) - set(NAMES))
    if unknown or (options.replay and len(options.targets) != 1):
        parser.error(f"targets {unknown or options.targets}; allowed: {', '.join(NAMES)}; with --replay exactly one")
    if options.replay:
        return _replay(options.targets[0], options.replay)
    options.found.mkdir(parents=True, exist_ok=True)
    names = options.targets or list(NAMES)
    share = options.seconds * min(options.jobs, len(names)) / len(names)
    with ThreadPoolExecutor(options.jobs) as pool:
        codes = list(pool.map(lambda name: _run(name, share, options.found), names))
    return int(any(codes))


def _replay(name: str, path: Path) -> int:
    from fuzz.limits import BrokenPromise, check
    from fuzz.targets import load

    try:
        check(load(name), path.read_bytes())
    except BrokenPromise as error:
        print(f"{name}: FAILED\n{error}")
        return 1
    print(f"{name}: {path} keeps the promise")
    return 0


def _run(name: str, seconds: float, found: Path) -> int:
    command = [sys.executable, "-m", "fuzz.worker", name, str(seconds), str(found)]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    lines = [line for line in done.stdout.splitlines() if not line.startswith(_TALK)]
    print(f"{name}:", *lines[-100:], sep="\n", flush=True)
    if done.returncode < 0 or done.returncode > 1:
        print(f"{name}: FAILED: the process ended with {done.returncode}; its input: {found}/{name}-last or -crash-*")
    return done.returncode


if __name__ == "__main__":
    sys.exit(main())
