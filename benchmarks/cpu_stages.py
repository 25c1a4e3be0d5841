#!/usr/bin/env python3
"""Where the processor time of `cryoplug denoise` with the general model goes on one core, stage by stage.

Stages run one after another in one process, on one thread, from the import of torch to the written file; the command runs
them side by side. Appends a row for each stage to cpu_stages.csv; half a minute.

    python benchmarks/cpu_stages.py [--size 4096] [--angpix 0.8] [--csv FILE]
"""

from __future__ import annotations

import argparse
import datetime
import json
import tempfile
from pathlib import Path

from cpu_denoise import child, cpu_name
from cpu_general import MAKE
from rows import append_rows

STAGES = """
import json, sys, time
from pathlib import Path
found, before = {}, time.process_time()
def lap(name):
    global before
    now = time.process_time()
    found[name], before = now - before, now
found["start of Python"] = before
import cryoplug.cli.main, cryoplug.workflows.denoise
lap("numpy and the command")
import torch
lap("torch")
torch.set_num_threads(1)
import numpy as np
from cryoplug.core.fourier_crop import resample_source
from cryoplug.core.repairs import RepairedMicrograph
from cryoplug.core.micrograph import ArrayMicrograph
from cryoplug.core.normalization import MeasuredSource, fit_to
from cryoplug.core.statistics import moments_of, scan_pixels
from cryoplug.formats.mrc import MrcRowWriter
from cryoplug.formats.registry import open_micrograph
from cryoplug.inference.denoiser import Denoiser
from cryoplug.inference.resampling import resample_on_host
from cryoplug.models.checkpoint import load_checkpoint
from cryoplug.outputs.previews import preview_of_files, write_preview
folder, path = Path(sys.argv[1]), Path(sys.argv[1]) / "micrograph.mrc"
checkpoint = load_checkpoint("general")
lap("weights read")
denoiser = Denoiser(checkpoint, device="cpu", threads=1, tta="off")
lap("network built, weights packed")
raw = open_micrograph(path)
source = RepairedMicrograph(raw)
lap("hot pixels")
scan_pixels(source)
lap("statistics")
plan = denoiser.regrid.plan(source.shape, raw.pixel_size_angstrom, path=path)
small = resample_source(source, plan.network_shape, resample=resample_on_host)
lap("Fourier crop, with reading")
pixels = ArrayMicrograph(small, path)
normalization = fit_to(MeasuredSource(pixels), denoiser.normalize)
lap("quantiles on the network's grid")
made = np.empty(small.shape, np.float32)
for band in denoiser.bands(small.shape):
    rows = normalization.apply(pixels.read_rows(band.read.y0, band.read.y1))
    made[band.paste.slices] = denoiser.forward(rows, band)
lap("network")
made = normalization.invert(made)
moments_of(made)
lap("grey values")
with (folder / "out.mrc").open("w+b") as stream:
    how = {"template": raw.header, "pixel_size_angstrom": plan.written_angstrom, "label": "x", "path": path}
    writer = MrcRowWriter(stream, plan.written_shape, **how)
    for rows in plan.finish(made, None):
        writer.write_rows(rows)
    writer.finish()
lap("padding back, statistics, writing")
write_preview(folder / "out.jpg", preview_of_files([path], folder / "out.mrc"))
lap("preview")
print(json.dumps(found))
"""


def main() -> None:
    """Measure the stages and append their rows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=4096)
    parser.add_argument("--angpix", type=float, default=0.8)
    parser.add_argument("--csv", type=Path, default=Path(__file__).with_suffix(".csv"))
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="cryoplug-benchmark-") as folder:
        child(MAKE, folder, options.size, options.angpix)
        found = child(STAGES, folder)
    common = {
        "date": datetime.date.today().isoformat(),
        "cpu": cpu_name(),
        "size": options.size,
        "angpix": options.angpix,
    }
    rows = [{**common, "stage": name, "processor_ms": round(1000 * seconds)} for name, seconds in found.items()]
    append_rows(options.csv, rows, list(rows[0]))
    print(json.dumps({name: round(1000 * seconds) for name, seconds in found.items()}, indent=1))


if __name__ == "__main__":
    main()
