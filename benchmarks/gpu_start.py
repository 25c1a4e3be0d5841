"""What a command pays before its first micrograph, and what a small one costs, on a GPU.

    python benchmarks/gpu_start.py [--before other/checkout] [--repeats 3] [--small 1000] [--csv gpu_start.csv]

start   One micrograph of 4096 x 4096 by the general model, from the start of Python until the file has its name, and until the
        end of the command. Beside it, what no program that uses torch can do without: Python with `import torch`, and that
        with a first tensor on the GPU. `--before` is another checkout, whose command runs in turn with this one's.
small   So many micrographs of 512 x 512, RAM disk to RAM disk, without previews, by the general model and by `cryo_cnn`, in as
        many processes as the command chooses, and in one. The rate counts from the first tenth of the files on. `cp` of the
        same files is beside it. Most of them are links.

Each row is a median, with its range; `cpu_s` is the processor time of all threads. With `--device cpu` it tells the same of a
machine without a GPU.
"""

from __future__ import annotations

import argparse
import datetime
import json
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch

from cpu_denoise import cpu_name
from denoise_run import make_linked_files
from gpu_denoise import make_checkpoint
from programs import ROOT, Ran, run_python
from rows import append_rows

COLUMNS = ("date", "gpu", "torch", "part", "program", "files", "shape", "median", "unit", "range", "cpu_s")
BYTECODE = Path("/dev/shm/gpu_start.bytecode")
"""Python keeps compiled modules here, as it does beside them where a package was installed with them."""


STAGES = """
import json, sys, time
up = time.time()
from watched import watch
seen = watch()
from cryoplug.cli.main import main
loaded = time.time()
began, *words = sys.argv[1:]
try:
    main(words)
except SystemExit as end:
    assert not end.code
ended = time.time()
spans = {"Python": (float(began), up), "cryoplug's command line": (up, loaded)}
for span in seen.spans:
    begin, end = spans.get(span.label, (span.begin, span.begin))
    spans[span.label] = begin, end + span.wall_s
spans["all of the command"] = float(began), ended
print(json.dumps({label: [begin - float(began), end - float(began)] for label, (begin, end) in spans.items()}))
"""


def main() -> int:
    """Measure both parts and append the rows."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--before", type=Path, help="another checkout to compare with")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--side", type=int, default=4096, help="of the one micrograph, pixels")
    parser.add_argument("--small", type=int, default=1000, help="small micrographs")
    parser.add_argument("--parts", default="start,stages,small")
    parser.add_argument("--folder", type=Path, default=Path("/dev/shm"), help="a RAM disk")
    parser.add_argument("--csv", type=Path, default=Path("gpu_start.csv"))
    arguments = parser.parse_args()
    parts = {"start": start_rows, "stages": stage_rows, "small": small_rows}
    with tempfile.TemporaryDirectory(dir=arguments.folder, prefix="gpu_start.") as name:
        for part in arguments.parts.split(","):
            rows = parts[part](Path(name), arguments)
            append_rows(arguments.csv, (shown(part, arguments.device, row) for row in rows), COLUMNS)
    return 0


def start_rows(folder: Path, arguments: argparse.Namespace) -> Iterator[dict[str, object]]:
    """Measure the start."""
    command = command_for_one(folder, arguments)
    tensor = f"import torch; torch.zeros(1, device={arguments.device!r}).cpu()"
    programs = {
        "python -c 'import torch'": (["-c", "import torch"], ROOT),
        "the same with a first tensor on the device": (["-c", tensor], ROOT),
        "cryoplug denoise": (["-m", "cryoplug", *command], ROOT),
    }
    if arguments.before:
        programs["cryoplug denoise, before"] = ["-m", "cryoplug", *command], arguments.before
    found: dict[str, list[Ran]] = {name: [] for name in programs}
    written: dict[str, list[float]] = {}
    for turn in range(arguments.repeats + 1):
        for name, (words, where) in programs.items():
            ran = run_python(words, where, BYTECODE)
            results = list((folder / "out").glob("*.mrc")) if "denoise" in name else []
            for result in results:
                written.setdefault(name, []).append(result.stat().st_mtime - ran.began)
                shutil.rmtree(folder / "out")
            if turn:  # the first round reads everything from the disk and compiles kernels
                found[name].append(ran)
    shape = f"{arguments.side}x{arguments.side}"
    for name, runs in found.items():
        cpu = statistics.median(item.cpu_s for item in runs)
        yield {"program": name, "shape": shape, **of([item.wall_s for item in runs], "s"), "cpu_s": cpu}
    for name, times in written.items():
        yield {"program": f"{name}: until the file is written", "shape": shape, **of(times[1:], "s")}


def stage_rows(folder: Path, arguments: argparse.Namespace) -> Iterator[dict[str, object]]:
    """Measure when each stage of the start began and ended; the medians of both."""
    command = command_for_one(folder, arguments)
    found: dict[str, list[list[float]]] = {}
    for turn in range(arguments.repeats + 1):
        ran = run_python(["-c", STAGES, str(time.time()), *command], bytecode=BYTECODE)
        shutil.rmtree(folder / "out")
        for label, span in ran.result().items() if turn else ():
            found.setdefault(label, []).append(span)
    shape = f"{arguments.side}x{arguments.side}"
    between = {
        label: [statistics.median(times) for times in zip(*spans, strict=True)] for label, spans in found.items()
    }
    for label, (begin, end) in sorted(between.items(), key=lambda item: item[1]):
        yield {"program": label, "shape": shape, "median": end - begin, "unit": "s", "range": f"{begin:.3f}-{end:.3f}"}


def command_for_one(folder: Path, arguments: argparse.Namespace) -> list[str]:
    """Make one micrograph if it is not there; give the words that denoise it."""
    if not (folder / "one").exists():
        make_linked_files(folder / "one", 1, arguments.side)
    words = ["denoise", str(folder / "one/m00000.mrc"), "--checkpoint", "general", "--device", arguments.device]
    return [*words, "-o", str(folder / "out")]


def small_rows(folder: Path, arguments: argparse.Namespace) -> Iterator[dict[str, object]]:
    """Measure small files."""
    side, count = 512, arguments.small
    source = folder / "small"
    make_linked_files(source, count, side)
    common = {"files": count, "shape": f"{side}x{side}"}
    begin = time.perf_counter()
    subprocess.run(["cp", "-rL", source, folder / "copy"], check=True)
    yield {"program": "cp", **common, **of([count / (time.perf_counter() - begin)], "files/s")}
    make_checkpoint(folder / "cryo_cnn", "cryo_cnn")
    networks = ("general", "general"), ("cryo_cnn", str(folder / "cryo_cnn"))
    several = [] if arguments.device == "cpu" else [("general, --processes 1", "general")]
    for name, checkpoint in (*networks, *several):
        words = ["-m", "cryoplug", "denoise", str(source), "--checkpoint", checkpoint, "--device", arguments.device]
        options = ["--processes", "1"] if "--processes" in name else []
        ran = run_python([*words, "-o", str(folder / "out"), "--no-previews", *options], bytecode=BYTECODE)
        times = sorted(item.stat().st_mtime for item in (folder / "out").glob("*.mrc"))
        first = len(times) // 10
        rate = (len(times) - 1 - first) / (times[-1] - times[first])
        yield {"program": name, **common, **of([rate], "files/s"), "cpu_s": ran.cpu_s}
        yield {"program": f"{name}: the whole command", **common, **of([ran.wall_s], "s"), "cpu_s": ran.cpu_s}
        shutil.rmtree(folder / "out")


def of(values: Sequence[float], unit: str) -> dict[str, object]:
    """Give median and range."""
    return {
        "median": f"{statistics.median(values):.4g}",
        "unit": unit,
        "range": f"{min(values):.4g}-{max(values):.4g}",
    }


def shown(part: str, device: str, row: dict[str, object]) -> dict[str, object]:
    """Complete a row, and print it."""
    name = torch.cuda.get_device_name(0) if device.startswith("cuda") else cpu_name()
    now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    short = {key: f"{value:.3g}" if isinstance(value, float) else value for key, value in row.items()}
    complete = {"date": now, "gpu": name, "torch": torch.__version__, "part": part, **short}
    print(json.dumps({key: value for key, value in complete.items() if key not in ("date", "torch")}), flush=True)
    return complete


if __name__ == "__main__":
    sys.exit(main())
