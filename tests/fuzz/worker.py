"""Fuzz one target in this process until the time is over; the parent notices when libhdf5 takes the process with it."""

from __future__ import annotations

import contextlib
import faulthandler
import importlib.util
import random
import sys
import time
from pathlib import Path

import hypothesis
from hypothesis import HealthCheck, Phase, given, settings

from fuzz.limits import BrokenPromise, check, limit_address_space
from fuzz.mutations import MAX_BYTES, mutated
from fuzz.targets import Target, load

_BATCH = 400
_HANG_SECONDS = 20
_ALL_CHECKS = list(HealthCheck)
_NATIVE = ("hdf5",)
"""Read by a library in C, of which atheris sees nothing."""


def main(name: str, seconds: float, found: Path) -> int:
    """Fuzz target `name` for `seconds`; give 1 when an input broke the promise, which then lies in `found`."""
    if importlib.util.find_spec("atheris") is not None and name not in _NATIVE:
        return _with_coverage(name, seconds, found)
    target, last = load(name), found / f"{name}-last"
    limit_address_space()
    end, runs = time.monotonic() + seconds, 0

    def one(payload: bytes) -> None:
        nonlocal runs
        runs += 1
        last.write_bytes(payload)
        faulthandler.dump_traceback_later(_HANG_SECONDS, exit=True)
        check(target, payload)
        faulthandler.cancel_dump_traceback_later()

    while time.monotonic() < end:
        failure = _batch(target, one, end)
        if failure is not None:
            report(found, name, *failure)
            return 1
    last.unlink(missing_ok=True)
    print(f"{name}: {runs} inputs, none broke the promise")
    return 0


def report(found: Path, name: str, payload: bytes, error: BrokenPromise) -> None:
    """Save an input that broke the promise and say how to run it again."""
    path = found / f"{name}-broken"
    path.write_bytes(payload)
    print(f"{name}: FAILED\n{error}\n{name}: {len(payload)} bytes, {payload[:200]!r}")
    print(f"{name}: saved; run it again with: python -m fuzz {name} --replay {path}")


def _batch(target: Target, one: object, end: float) -> tuple[bytes, BrokenPromise] | None:
    smallest: list[tuple[bytes, BrokenPromise]] = []

    @hypothesis.seed(random.randrange(1 << 32))
    @settings(
        max_examples=_BATCH,
        deadline=None,
        database=None,
        suppress_health_check=_ALL_CHECKS,
        phases=(Phase.generate, Phase.shrink),
        print_blob=False,
        report_multiple_bugs=False,
    )
    @given(payload=mutated(target.seeds(), target.words))
    def run(payload: bytes) -> None:
        if time.monotonic() > end and not smallest:
            return
        try:
            one(payload)  # type: ignore[operator]
        except BrokenPromise as error:
            smallest.append((payload, error))
            raise

    with contextlib.suppress(BrokenPromise, hypothesis.errors.Flaky):
        run()
    return min(smallest, key=lambda item: len(item[0])) if smallest else None


def _with_coverage(name: str, seconds: float, found: Path) -> int:
    """Let atheris (libFuzzer) look for inputs that reach new code."""
    import atheris

    with atheris.instrument_imports(include=["cryoplug"]):
        target = load(name)
    corpus = found / f"{name}-corpus"
    corpus.mkdir(exist_ok=True)
    for number, seed in enumerate(target.seeds()):
        (corpus / f"seed-{number}").write_bytes(seed)
    words = found / f"{name}-words"
    words.write_text("".join('"' + "".join(f"\\x{byte:02x}" for byte in word) + '"\n' for word in target.words if word))
    broken: list[bytes] = []

    def one(payload: bytes) -> None:
        try:
            check(target, payload)
        except BrokenPromise as error:
            broken.append(payload)
            report(found, name, payload, error)
            raise

    arguments = [
        sys.argv[0],
        str(corpus),
        *([f"-dict={words}"] if target.words else []),
        f"-artifact_prefix={found / f'{name}-'}",
        f"-max_total_time={max(1, int(seconds))}",
        f"-max_len={MAX_BYTES}",
        f"-timeout={_HANG_SECONDS}",
        "-rss_limit_mb=2048",
        "-verbosity=0",
        "-print_final_stats=1",
    ]
    limit_address_space()
    atheris.Setup(arguments, one)
    atheris.Fuzz()  # ends the process
    return int(bool(broken))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], float(sys.argv[2]), Path(sys.argv[3])))
