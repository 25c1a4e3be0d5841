#!/usr/bin/env python3
"""`cryoplug denoise` of one micrograph on the CPU against the plain network applied to the whole image.

Each side runs in processes of its own, in turn. The plain side is timed for the network alone; cryoplug's side for the
whole command: reading, statistics, network, writing, fsync. Importing torch (4 to 5 s, 217 MB) is in neither time, and
in both memories. Processor time of all threads is told beside the wall clock's: on a machine that is not idle it says more.
With --alone the plain side is left out, for sizes that it has no memory for. Appends one row to cpu_denoise.csv beside
this file.

    python benchmarks/cpu_denoise.py [--size 4096] [--model cryo_cnn] [--threads 2] [--repeats 3] [--alone] [--csv FILE]
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from rows import append_rows

MAKE = """
import sys
from pathlib import Path
import numpy as np
from cryoplug.formats.mrc import write_mrc
from cryoplug.models.checkpoint import Checkpoint, save_checkpoint
from cryoplug.models.registry import model_spec
folder, size, model = Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
pixels = np.random.default_rng(0).gamma(3.0, 2.0, (size, size)).astype(np.float32)
write_mrc(folder / "micrograph.mrc", pixels, pixel_size_angstrom=1.0)
weights = {name: tensor.numpy() for name, tensor in model_spec(model).build(seed=0).state_dict().items()}
save_checkpoint(folder / "run" / "epoch_0001", Checkpoint(model, weights), 0.0)
print("{}")
"""

PLAIN = """
import json, resource, sys, time
import mrcfile, numpy as np, torch
from torch import nn
folder, threads, model = sys.argv[1], int(sys.argv[2]), sys.argv[3]
torch.set_num_threads(threads)
names, channels = (["1", "2", "3"], 16) if model == "cryo_cnn" else ([f"{i:02d}" for i in range(1, 13)], 32)
layers = []
for name in names:
    layer = nn.Conv2d(1 if name == names[0] else channels, 1 if name == names[-1] else channels, 3, padding=1)
    for kind, tensor in (("weights", layer.weight), ("bias", layer.bias)):
        values = np.fromfile(f"{folder}/run/epoch_0001/conv{name}_{kind}.bin", "<f4")
        tensor.data.copy_(torch.from_numpy(values.reshape(tensor.shape)))
    layers += [layer, nn.ReLU()]
net = nn.Sequential(*layers[:-1])
pixels = np.array(mrcfile.read(f"{folder}/micrograph.mrc"))
scale = np.float32(np.percentile(pixels[pixels > 0], 95))
image = torch.from_numpy(np.clip(pixels / scale, 0, 1))[None, None]
start, cpu_start = time.perf_counter(), time.process_time()
with torch.inference_mode():
    result = net(image)
    if model != "cryo_cnn":
        result = image - result
seconds, cpu_s = time.perf_counter() - start, time.process_time() - cpu_start
rss = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
np.save(f"{folder}/plain.npy", result[0, 0].numpy() * scale)
print(json.dumps({"seconds": seconds, "cpu_s": cpu_s, "rss_mib": rss}))
"""

OURS = """
import json, resource, sys, time
import torch
from cryoplug.cli.main import run
folder, threads = sys.argv[1], sys.argv[2]
start, cpu_start = time.perf_counter(), time.process_time()
code = run(["denoise", f"{folder}/micrograph.mrc", "--checkpoint", f"{folder}/run", "-o", f"{folder}/out",
            "--threads", threads, "--device", "cpu", "--overwrite", "--json"])
seconds, cpu_s = time.perf_counter() - start, time.process_time() - cpu_start
rss = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
assert code == 0, code
print(json.dumps({"seconds": seconds, "cpu_s": cpu_s, "rss_mib": rss}))
"""

COMPARE = """
import json, sys
import mrcfile, numpy as np
plain = np.load(f"{sys.argv[1]}/plain.npy")
ours = mrcfile.read(f"{sys.argv[1]}/out/micrograph.mrc")
print(json.dumps({"difference": float(np.abs(plain - ours).max() / np.ptp(plain))}))
"""


def child(code: str, *arguments: object) -> dict[str, float]:
    """Run a script in a fresh interpreter and read the JSON in its last line."""
    command = [sys.executable, "-c", code, *map(str, arguments)]
    # The interpreter's -c looks for packages in the working folder first: the checkout that this file is part of.
    done = subprocess.run(command, cwd=Path(__file__).resolve().parents[1], capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(done.stderr)
    return json.loads(done.stdout.strip().splitlines()[-1])


def cpu_name() -> str:
    """Give the model of the processor."""
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def main() -> None:
    """Measure both sides in turn and append a row."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=4096)
    parser.add_argument("--model", choices=["cryo_cnn", "residual_cnn"], default="cryo_cnn")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--alone", action="store_true", help="cryoplug's side only")
    parser.add_argument("--csv", type=Path, default=Path(__file__).with_suffix(".csv"))
    options = parser.parse_args()
    plain, ours = [], []
    with tempfile.TemporaryDirectory(prefix="cryoplug-benchmark-") as folder:
        child(MAKE, folder, options.size, options.model)
        for _ in range(options.repeats):
            if not options.alone:
                plain.append(child(PLAIN, folder, options.threads, options.model))
            ours.append(child(OURS, folder, options.threads))
        difference = "" if options.alone else child(COMPARE, folder)["difference"]
    row = {
        "date": datetime.date.today().isoformat(),
        "cpu": cpu_name(),
        "threads": options.threads,
        "load_1min": round(os.getloadavg()[0], 2),
        "torch": child("import json, torch; print(json.dumps(torch.__version__))"),
        "model": options.model,
        "shape": f"{options.size}x{options.size}",
        "dtype": "float32",
        "repeats": options.repeats,
        **figures("plain_network", plain),
        **figures("cryoplug_command", ours),
        "times_faster": ratio(plain, ours, "seconds", statistics.median),
        "times_faster_of_fastest": ratio(plain, ours, "seconds", min),
        "times_less_processor_time": ratio(plain, ours, "cpu_s", min),
        "difference_of_range": difference,
    }
    append_rows(options.csv, [row], list(row))
    for key, value in row.items():
        print(f"{key:>22}  {value}")


def figures(name: str, runs: list[dict[str, float]]) -> dict[str, object]:
    """Give the columns of one side; empty when it did not run."""
    columns = (f"{name}_s", f"{name}_spread_s", f"{name}_processor_s", f"{name}_rss_mib")
    if not runs:
        return dict.fromkeys(columns, "")
    seconds = [run["seconds"] for run in runs]
    return {
        columns[0]: round(statistics.median(seconds), 3),
        columns[1]: f"{min(seconds):.2f}-{max(seconds):.2f}",
        columns[2]: round(min(run["cpu_s"] for run in runs), 3),
        columns[3]: round(max(run["rss_mib"] for run in runs)),
    }


def ratio(
    plain: list[dict[str, float]], ours: list[dict[str, float]], key: str, of: Callable[[list[float]], float]
) -> object:
    """Give how many times more the plain side took; empty when it did not run."""
    return round(of([run[key] for run in plain]) / of([run[key] for run in ours]), 2) if plain else ""


if __name__ == "__main__":
    main()
