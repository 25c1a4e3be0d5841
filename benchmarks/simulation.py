"""How fast fields with a known truth are made: in memory on a device, as a training draws them, and by `cryoplug simulate`.

    python benchmarks/simulation.py [--device cuda] [--size 4096] [--fields 20] [--parts memory command] [--csv simulation.csv]

``memory``: fields of the population that the general model learns from, random molecules with dirt: drawn on the host, made
and recorded on the device, in one thread; the first two fields are left out. ``host`` is the part before anything is made,
which overlaps with the device's work. ``command``: one micrograph of random molecules by the command, importing torch and
writing five images included. Processor time of all threads is told beside the wall clock's: on a machine that is not idle it
says more. Appends rows to a CSV file.
"""

from __future__ import annotations

import argparse
import datetime
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch

from cryoplug.simulation.dirt import random_dirt
from cryoplug.simulation.field import expose
from cryoplug.simulation.molecules import molecule_library
from cryoplug.simulation.population import Population
from rows import append_rows

WARM_UP = 2
LIBRARY = 200
COLUMNS = (
    *("date", "device", "threads", "load_1min", "torch", "part", "shape", "fields"),
    *("median_s", "fastest_s", "slowest_s", "cpu_s", "host_s", "fields_per_s", "peak_mib"),
)


def main() -> int:
    """Measure, print and append rows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--size", type=int, default=4096, help="side of a field in pixels (default 4096)")
    parser.add_argument("--fields", type=int, default=20, help="default 20")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--parts", nargs="+", choices=["memory", "command"], default=["memory", "command"])
    parser.add_argument("--csv", type=Path, default=Path(__file__).with_suffix(".csv"), help="rows are appended to it")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    append_rows(arguments.csv, run(arguments), COLUMNS)
    return 0


def run(arguments: argparse.Namespace) -> Iterator[dict[str, object]]:
    """Measure each part and give its row."""
    parts = {"memory": in_memory, "command": by_command}
    for part in arguments.parts:
        row = {
            "date": datetime.date.today().isoformat(),
            "device": device_name(arguments.device),
            "threads": arguments.threads,
            "load_1min": round(os.getloadavg()[0], 2),
            "torch": torch.__version__,
            "part": part,
            "shape": f"{arguments.size}x{arguments.size}",
            **parts[part](arguments),
        }
        print(", ".join(f"{key} {value}" for key, value in row.items()), flush=True)
        yield row


def in_memory(arguments: argparse.Namespace) -> dict[str, object]:
    """Make fields and record them; nothing leaves the device."""
    device = torch.device(arguments.device)
    library = molecule_library(0, LIBRARY)
    population = Population()
    times, hosts, processor = [], [], []
    with torch.inference_mode():
        for number in range(WARM_UP + arguments.fields):
            synchronize(device)
            begin, cpu = time.perf_counter(), time.process_time()
            settings, placed = population.draw(library, size_px=arguments.size, seed=0, number=number)
            host = time.perf_counter() - begin
            generator = torch.Generator(device).manual_seed(number)
            rng = np.random.default_rng([0, number])
            dirt = random_dirt(settings.shape, settings.pixel_size_angstrom, rng, generator)
            made = expose(settings, placed, generator, dirt=dirt)
            made.record(generator, counted=False)
            synchronize(device)
            times.append(time.perf_counter() - begin)
            processor.append(time.process_time() - cpu)
            hosts.append(host)
    peak = torch.cuda.max_memory_allocated(device) / 2**20 if device.type == "cuda" else peak_mib(resource.RUSAGE_SELF)
    kept = times[WARM_UP:]
    return {
        **spread(kept),
        "cpu_s": round(statistics.median(processor[WARM_UP:]), 3),
        "host_s": round(statistics.median(hosts[WARM_UP:]), 4),
        "fields_per_s": round(len(kept) / sum(kept), 2),
        "peak_mib": round(peak),
    }


def by_command(arguments: argparse.Namespace) -> dict[str, object]:
    """Run the command for one micrograph, three times."""
    times, processor = [], []
    for _ in range(3):
        with tempfile.TemporaryDirectory(prefix="cryoplug-benchmark-") as folder:
            words = ["simulate", "-o", f"{folder}/out", "--count", "1", "--size", str(arguments.size), "--device"]
            words += [arguments.device, "--specimen", "random", "--pixel-size", "1.3", "--dirt"]
            before, begin = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
            environment = {**os.environ, "OMP_NUM_THREADS": str(arguments.threads)}
            subprocess.run([sys.executable, "-m", "cryoplug", *words], check=True, capture_output=True, env=environment)
            times.append(time.perf_counter() - begin)
            after = resource.getrusage(resource.RUSAGE_CHILDREN)
            processor.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    return {
        **spread(times),
        "cpu_s": round(statistics.median(processor), 3),
        "host_s": "",
        "fields_per_s": round(1 / statistics.median(times), 3),
        "peak_mib": round(peak_mib(resource.RUSAGE_CHILDREN)),
    }


def spread(times: list[float]) -> dict[str, object]:
    """Give number, median, fastest and slowest."""
    return {
        "fields": len(times),
        "median_s": round(statistics.median(times), 4),
        "fastest_s": round(min(times), 4),
        "slowest_s": round(max(times), 4),
    }


def synchronize(device: torch.device) -> None:
    """Wait for a GPU."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def peak_mib(who: int) -> float:
    """Largest resident memory."""
    return resource.getrusage(who).ru_maxrss / 1024


def device_name(device: str) -> str:
    """Name the card or the processor."""
    if device.startswith("cuda"):
        return torch.cuda.get_device_name(device)
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())


if __name__ == "__main__":
    sys.exit(main())
