"""What the host does for each micrograph of `cryoplug denoise` on a GPU: files a second, and milliseconds of every stage.

    python benchmarks/gpu_host.py [--before ANOTHER_CHECKOUT] [--files 300] [--size 4096] [--small 600] [--csv gpu_host.csv]

From a RAM disk to the same disk, in turn: `cp` of all files, then the general model with and without previews, by this checkout
and by another one; then small files. With `--processes`, so many processes share the GPU, for each number; their stages are
not timed. Each command runs in a process of its own, which first denoises four other files. Rates: of the whole command, and
from the first tenth of the files on. Each stage is timed in its thread, by the clock and by processor time (which counts
waiting for the device, too), and divided by the number of files. How late a thread wakes up that slept for a millisecond says
how long one waits for Python's lock. Hashes of the first eight results and pictures say whether both checkouts make the same.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from denoise_run import make_linked_files
from programs import ROOT, run_python
from rows import append_rows

COLUMNS = ("date", "gpu", "cores", "torch", "program", "files", "shape", "what", "value", "unit", "cpu_ms")
ANGSTROM = "0.8"

COMMAND = """
import contextlib, hashlib, io, json, sys, threading, time
from pathlib import Path
from watched import watch
seen = watch()
from cryoplug.cli.main import run
warm, source, target, device, *options = sys.argv[1:]
def denoise(source, target):
    start = time.perf_counter()
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        assert run(["denoise", source, "--checkpoint", "general", "-o", target, "--device", device, *options]) == 0
    return time.perf_counter() - start
late = []
def sleep_and_look():
    while not ended.is_set():
        start = time.perf_counter()
        time.sleep(0.001)
        late.append(time.perf_counter() - start - 0.001)
def digest(paths, skip):
    parts = [hashlib.sha256(path.read_bytes()[skip:]).digest() for path in sorted(paths)[:8]]
    return hashlib.sha256(b"".join(parts)).hexdigest()[:16]
if "--processes" not in options:  # those are new ones each time
    denoise(warm, target + "-warm")
seen.spans.clear()
ended = threading.Event()
looking = threading.Thread(target=sleep_and_look)
looking.start()
cpu = time.process_time()
seconds = denoise(source, target)
cpu = time.process_time() - cpu
ended.set()
looking.join()
made = list(Path(target).glob("*.mrc"))
times = sorted(path.stat().st_mtime for path in made)
first = len(times) // 10
print(json.dumps({
    "whole command": [len(times) / seconds, "files/s", 1000 * cpu / len(times)],
    "from the first tenth on": [(len(times) - 1 - first) / (times[-1] - times[first]), "files/s", ""],
    "a wait for Python's lock, mean": [1000 * sum(late) / len(late), "ms", ""],
    **{label: [1000 * wall / len(times), "ms", 1000 * cpu / len(times)] for label, (wall, cpu) in seen.sums().items()},
    "results": [digest(made, 1024), "hash", ""],
    "pictures": [digest(Path(target).glob("previews/*.jpg"), 0), "hash", ""],
}))
"""


def main() -> int:
    """Run all commands, print them and append CSV rows."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--before", type=Path, help="another checkout to compare with")
    parser.add_argument("--files", type=int, default=300, help="micrographs (default 300)")
    parser.add_argument("--size", type=int, default=4096, help="side in pixels (default 4096)")
    parser.add_argument("--small", type=int, default=600, help="micrographs of 512 x 512 (default 600; 0: none)")
    parser.add_argument("--processes", type=int, nargs="*", default=(), help="so many processes share the GPU, too")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--folder", type=Path, default=Path("/dev/shm"), help="the RAM disk (default /dev/shm)")
    parser.add_argument("--csv", type=Path, default=Path("gpu_host.csv"))
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="gpu_host.", dir=arguments.folder) as name:
        append_rows(arguments.csv, (shown(row, arguments.device) for row in rows(Path(name), arguments)), COLUMNS)
    return 0


def rows(folder: Path, arguments: argparse.Namespace) -> Iterator[dict[str, object]]:
    """Give the rows of all commands."""
    processes = [["--processes", str(number)] for number in arguments.processes] or [[]]
    checkouts = {"now": ROOT, **({"before": arguments.before.resolve()} if arguments.before else {})}
    for count, side in ((arguments.files, arguments.size), (arguments.small, 512)):
        if not count:
            continue
        source, warm = folder / f"in{side}", folder / f"warm{side}"
        make_linked_files(source, count, side)
        make_linked_files(warm, min(4, count), side)
        common = {"files": count, "shape": f"{side}x{side}"}
        touch_memory(folder / "touched", count * side * side * 4)
        start = time.perf_counter()
        subprocess.run(["cp", "-rL", source, folder / "copy"], check=True)
        rate = count / (time.perf_counter() - start)
        yield {**common, "program": "cp", "what": "whole command", "value": rate, "unit": "files/s"}
        shutil.rmtree(folder / "copy")
        asked = [[*one, *more] for more in processes for one in ([], ["--no-previews"])]
        for options in asked:
            for name, checkout in checkouts.items():
                found = denoised(checkout, warm, source, folder / "out", arguments.device, *options)
                program = " ".join([f"general model, {ANGSTROM} A/px", *options]) + f" ({name})"
                for what, (value, unit, cpu) in found.items():
                    yield {**common, "program": program, "what": what, "value": value, "unit": unit, "cpu_ms": cpu}


def touch_memory(folder: Path, size_bytes: int) -> None:
    """Fill a RAM disk once: some machines get their memory only when it is used, and whoever comes first waits."""
    folder.mkdir()
    piece = bytes(1 << 24)

    def fill(number: int) -> None:
        with (folder / str(number)).open("wb") as file:
            for _ in range(size_bytes // 8 // len(piece)):
                file.write(piece)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(fill, range(8)))
    shutil.rmtree(folder)


def denoised(checkout: Path, warm: Path, source: Path, target: Path, device: str, *options: str) -> dict[str, Any]:
    """Denoise a folder in a fresh process and remove the results."""
    words = [str(word) for word in (warm, source, target, device, "--pixel-size", ANGSTROM, *options)]
    found = run_python(["-c", COMMAND, *words], checkout).result()
    for folder in (target, Path(f"{target}-warm")):
        shutil.rmtree(folder, ignore_errors=True)
    return found


def shown(row: dict[str, object], device: str) -> dict[str, object]:
    """Complete a row, and print it."""
    import torch

    gpu = torch.cuda.get_device_name(0) if device.startswith("cuda") else "cpu, a dry run"
    now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    short = {key: f"{value:.4g}" if isinstance(value, float) else value for key, value in row.items()}
    print(json.dumps(short), flush=True)
    cores = len(os.sched_getaffinity(0))
    return {"date": now, "gpu": gpu, "cores": cores, "torch": torch.__version__, **short}


if __name__ == "__main__":
    sys.exit(main())
