"""Make the pictures of the documentation: type the commands of the tutorial, and draw what came out.

``make pictures``, or ``python docs/draw_pictures.py [FOLDER]``. FOLDER gets the files of the tutorial (build/tutorial).
Answers of the commands that the tutorial shows are written anew, too. It takes some ten minutes on two cores, and needs
Chromium for the pages.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from cryoplug.core.micrograph import ImageF32
from cryoplug.formats.registry import open_micrograph
from cryoplug.metrics.baselines import best_gaussian
from cryoplug.outputs.previews import draw_bar

DOCS = Path(__file__).resolve().parent
TUTORIAL, PICTURES = DOCS / "tutorial.md", DOCS / "pictures"
MICROGRAPH = "mic_0001.mrc"
CROP = (slice(256, 768), slice(200, 712))
"""The part of the micrograph that the panels show: 512 x 512 pixels."""
PIXEL_SIZE_ANGSTROM = 2.6
"""Pixel size of the tutorial's micrographs."""
PANEL_PX, GAP_PX, CAPTION_PX = 396, 6, 26
MOST_BYTES = 130_000
"""What one picture may take in the repository."""
_BLOCK = re.compile(r"(?P<before>[^\n]*)\n```(?P<language>bash|text)\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL)
_SAYS = re.compile(r"<!-- says: (\d+) lines -->")


def main() -> int:
    """Type the tutorial in a new folder, and draw."""
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else "build/tutorial").absolute()
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    TUTORIAL.write_text(typed(TUTORIAL.read_text(encoding="utf-8"), folder), encoding="utf-8")
    draw(folder)
    return 0


def typed(page: str, folder: Path) -> str:
    """Run each block of commands of a page in its order, and give the page with the answers of this run."""
    search = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    answer = ""

    def run(block: re.Match[str]) -> str:
        nonlocal answer
        if block["language"] == "text":
            says = _SAYS.fullmatch(block["before"])
            lines = answer.splitlines(keepends=True)[: int(says[1])] if says else [block["text"]]
            return f"{block['before']}\n```text\n{''.join(lines)}```"
        if not block["before"].startswith("<!-- not run"):
            sys.stderr.write(block["text"])
            done = subprocess.run(
                ["bash", "-euc", block["text"]],
                cwd=folder,
                env={**os.environ, "PATH": search},
                stdout=subprocess.PIPE,
                check=True,
            )
            answer = done.stdout.decode()
        return block[0]

    return _BLOCK.sub(run, page)


def draw(folder: Path) -> None:
    """Draw all pictures from the files of the tutorial."""
    raw, truth = (read(folder / "simulated" / name / MICROGRAPH) for name in ("noisy", "clean"))
    image, particles, trained = (read(folder / name / MICROGRAPH) for name in ("denoised", "particles", "trained"))
    _, blurred = best_gaussian(raw, truth)
    before_after = {"raw": raw, "best Gaussian blur": blurred, "denoised by cryoplug": image, "truth": truth}
    panels("before_after", before_after, like=image)
    panels("particles", {"raw": raw, "image": image, "particles": particles}, like=image)
    panels("trained", {"general model": image, "trained on these halves": trained, "truth": truth}, like=truth)
    even, odd = (read(folder / "simulated" / name / MICROGRAPH) for name in ("even", "odd"))
    panels("halves", {"even half": even, "odd half": odd, "even less odd": even - odd}, like=even, deviations=2)
    with Image.open(folder / "denoised" / "previews" / f"{Path(MICROGRAPH).stem}.jpg") as preview:
        width = 3 * PANEL_PX + 2 * GAP_PX
        save(
            "preview", preview.resize((width, round(preview.height * width / preview.width)), Image.Resampling.LANCZOS)
        )
    page("report", folder / "denoised" / "report.html", height=900)
    page("training", folder / "saved_models" / "unet" / "report.html", height=720)


def panels(name: str, images: Mapping[str, ImageF32], *, like: ImageF32, deviations: float = 3) -> None:
    """Draw images side by side on one grey scale: standard deviations of `like` around each image's own median."""
    span = deviations * float(like[CROP].std())
    count = len(images)
    sheet = Image.new("L", (count * PANEL_PX + (count - 1) * GAP_PX, PANEL_PX + CAPTION_PX), 24)
    pen = ImageDraw.Draw(sheet)
    for number, (caption, pixels) in enumerate(images.items()):
        part = pixels[CROP][::-1].astype(np.float64)  # row 0 of an MRC is the lowest one
        grey = np.clip(127.5 + 127.5 * (part - np.median(part)) / span, 0, 255).astype(np.uint8)
        left = number * (PANEL_PX + GAP_PX)
        panel = np.array(Image.fromarray(grey).resize((PANEL_PX, PANEL_PX), Image.Resampling.BOX))
        if number == 0:
            draw_bar(panel, PIXEL_SIZE_ANGSTROM * pixels[CROP].shape[1] / PANEL_PX)
        sheet.paste(Image.fromarray(panel), (left, 0))
        pen.text((left + 5, PANEL_PX + 4), caption, fill=235, font=ImageFont.load_default(15))
    save(name, sheet)


def page(name: str, path: Path, *, height: int) -> None:
    """Draw a page as a browser shows it."""
    shot = path.with_suffix(".png")
    subprocess.run(
        ["chromium", "--headless", "--no-sandbox", "--hide-scrollbars", f"--window-size=1200,{height}",
         "--force-prefers-color-scheme=light", "--virtual-time-budget=5000", f"--screenshot={shot}", path.as_uri()],
        check=True, capture_output=True,
    )  # fmt: skip
    with Image.open(shot) as picture:
        save(name, picture.convert("RGB"))


def save(name: str, picture: Image.Image) -> None:
    """Write a picture in the best quality that is small enough for the repository."""
    path = PICTURES / f"{name}.jpg"
    for quality in range(88, 20, -4):
        picture.save(path, quality=quality, optimize=True)
        if path.stat().st_size <= MOST_BYTES:
            return
    raise ValueError(f"{path}: {path.stat().st_size} bytes; allowed: {MOST_BYTES}; draw it smaller")


def read(path: Path) -> ImageF32:
    """Return all pixels of a micrograph, ``(y, x)``."""
    with open_micrograph(path) as source:
        return source.read_rows(0, source.shape[0])


if __name__ == "__main__":
    sys.exit(main())
