"""Grey images as JPEG and PNG files in memory. Pillow is used here and nowhere else."""

from __future__ import annotations

import contextlib
import functools
import io
import os
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from cryoplug.core.micrograph import ImageF32

JPEG_QUALITY = 82
"""JPEG quality, 1 to 95: at 82 noise still looks like the original, in a third of the bytes of a PNG."""
CAPTION_PX = 14
"""Height of the letters of captions, in pixels."""


def grey_bytes(image: ImageF32, low: float, high: float) -> npt.NDArray[np.uint8]:
    """Turn pixels into grey levels.

    Parameters
    ----------
    image
        ``(y, x)``.
    low, high
        Values that become black (0) and white (255); values beyond are clipped. Pixels that are not finite become black.
    """
    scale = 255.0 / (high - low) if high > low else 0.0
    with np.errstate(over="ignore", invalid="ignore"):
        levels = (image - np.float32(low)) * np.float32(scale)
        if not np.isfinite(levels.sum()):
            levels = np.nan_to_num(levels, nan=0.0, posinf=255.0, neginf=0.0)
    return np.clip(levels, 0, 255, out=levels).astype(np.uint8)


def jpeg(pixels: npt.NDArray[np.uint8], quality: int = JPEG_QUALITY) -> bytes:
    """Pack grey levels ``(y, x)`` into a JPEG file."""
    with _file_in_memory() as file:
        _image(pixels).save(file, format="JPEG", quality=quality)
        file.seek(0)
        return file.read()


def _file_in_memory() -> BinaryIO:
    """Open a file of the system that is on no disk; where that is not allowed, one of Python.

    Pillow holds Python's lock while it packs into an object of Python (6 ms for a preview), but not into a file of the system.
    """
    if hasattr(os, "memfd_create"):
        with contextlib.suppress(OSError):
            return os.fdopen(os.memfd_create("picture"), "w+b")
    return io.BytesIO()


def png(pixels: npt.NDArray[np.uint8]) -> bytes:
    """Pack grey levels ``(y, x)`` into a PNG file."""
    buffer = io.BytesIO()
    _image(pixels).save(buffer, format="PNG", compress_level=4)
    return buffer.getvalue()


def resized(image: ImageF32, shape: tuple[int, int], part: tuple[float, float] | None = None) -> ImageF32:
    """Bring an image to another number of pixels, by linear interpolation; shrinking averages.

    Parameters
    ----------
    image
        ``(y, x)``.
    shape
        Shape ``(y, x)`` of the result.
    part
        How many rows and columns of the image to use, from the first; None uses all.
    """
    from PIL import Image

    rows, columns = part or image.shape
    box = (0.0, 0.0, min(float(columns), image.shape[1]), min(float(rows), image.shape[0]))
    small = _image(np.ascontiguousarray(image, np.float32)).resize(shape[::-1], Image.Resampling.BILINEAR, box=box)
    return np.asarray(small, np.float32)


@functools.lru_cache(maxsize=256)
def text_mask(text: str, size_px: int = CAPTION_PX) -> npt.NDArray[np.uint8]:
    """Draw a line of text: 255 where there is ink. The array is shared, so do not write into it."""
    from PIL import Image, ImageDraw, ImageFont

    font = ImageFont.load_default(size_px)
    left, top, right, bottom = font.getbbox(text or " ")
    mask = Image.new("L", (max(1, int(right - left)), max(1, int(bottom - top))))
    ImageDraw.Draw(mask).text((-left, -top), text, fill=255, font=font)
    pixels = np.array(mask)
    pixels.setflags(write=False)
    return pixels


def paste_text(
    canvas: npt.NDArray[np.uint8], text: str, *, y: int, x: int, grey: int, size_px: int = CAPTION_PX
) -> None:
    """Write a line of text onto a canvas, with its upper left corner at ``(y, x)``; text beyond the canvas is cut."""
    mask = text_mask(text, size_px)[: max(0, canvas.shape[0] - y), : max(0, canvas.shape[1] - x)]
    place = canvas[y : y + mask.shape[0], x : x + mask.shape[1]]
    ink = mask.astype(np.uint16)
    place[...] = ((255 - ink) * place + ink * grey) // 255


def _image(pixels: npt.NDArray[Any]) -> Any:
    from PIL import Image

    return Image.fromarray(pixels)
