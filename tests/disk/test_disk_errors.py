"""Network disks fail for a moment: a read is tried again; what keeps failing is named, and is no bug."""

from __future__ import annotations

import errno
import gzip
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile

from cryoplug.disk import retry
from cryoplug.errors import FormatError, StorageError
from cryoplug.formats import compressed
from cryoplug.formats.mrc import MrcMicrograph, write_mrc
from cryoplug.formats.registry import open_micrograph

PIXELS = np.random.default_rng(0).integers(0, 99, (40, 30)).astype(np.float32)


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    waited: list[float] = []
    monkeypatch.setattr(retry.time, "sleep", waited.append)
    return waited


@pytest.fixture
def micrograph(tmp_path: Path) -> Path:
    write_mrc(tmp_path / "a.mrc", PIXELS)
    return tmp_path / "a.mrc"


def failing(real: Callable[..., Any], number: int, times: int) -> Callable[..., Any]:
    """The same function, but the first calls fail."""
    left = [times]

    def call(*arguments: object, **named: object) -> Any:
        if left[0]:
            left[0] -= 1
            raise OSError(number, os.strerror(number))
        return real(*arguments, **named)

    return call


@pytest.mark.parametrize("number", [errno.ESTALE, errno.EIO, errno.ETIMEDOUT])
@pytest.mark.parametrize("times", [1, 3])
def test_a_read_that_fails_for_a_moment_gives_the_pixels(
    micrograph: Path, monkeypatch: pytest.MonkeyPatch, number: int, times: int, no_waiting: list[float]
) -> None:
    with MrcMicrograph(micrograph) as source:
        monkeypatch.setattr(os, "preadv", failing(os.preadv, number, times))
        assert np.array_equal(source.read_rows(0, 40), PIXELS)
    assert no_waiting == list(retry.PAUSES_S[:times])


@pytest.mark.parametrize("name", ["open", "pread"])
def test_opening_is_tried_again(micrograph: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setattr(os, name, failing(getattr(os, name), errno.ESTALE, 2))
    with open_micrograph(micrograph) as source:
        assert source.shape == (40, 30)


def test_a_file_that_was_replaced_while_its_handle_went_stale_is_not_mixed(
    micrograph: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with MrcMicrograph(micrograph) as source:
        source.read_rows(0, 20)
        write_mrc(micrograph, PIXELS + 1)
        monkeypatch.setattr(os, "preadv", failing(os.preadv, errno.ESTALE, 1))
        with pytest.raises(FormatError, match="changed while reading: another file has its name now"):
            source.read_rows(20, 40)


def test_an_error_that_stays_is_not_retried_for_long_and_names_the_file(
    micrograph: Path, monkeypatch: pytest.MonkeyPatch, no_waiting: list[float]
) -> None:
    with MrcMicrograph(micrograph) as source:
        monkeypatch.setattr(os, "preadv", failing(os.preadv, errno.EIO, 99))
        with pytest.raises(StorageError, match=rf"^{micrograph}: reading failed: Input/output error; check"):
            source.read_rows(0, 40)
    assert sum(no_waiting) < 10


def test_an_error_that_will_not_pass_is_not_retried(micrograph: Path, no_waiting: list[float]) -> None:
    with pytest.raises(FileNotFoundError):
        open_micrograph(micrograph.with_name("b.mrc"))
    assert no_waiting == []


def write_tiff(path: Path) -> Path:
    tifffile.imwrite(path, PIXELS)
    return path


def write_gzip(path: Path) -> Path:
    write_mrc(path.with_suffix(""), PIXELS)
    path.write_bytes(gzip.compress(path.with_suffix("").read_bytes()))
    return path


@pytest.mark.parametrize(
    ("name", "write", "place", "method"),
    [
        ("a.tif", write_tiff, tifffile.TiffPage, "asarray"),
        ("b.mrc.gz", write_gzip, compressed._Packed, "read"),
    ],
)
def test_other_formats_name_the_file_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, write: Callable[[Path], Path], place: type, method: str
) -> None:
    path = write(tmp_path / name)
    with open_micrograph(path) as source:
        monkeypatch.setattr(place, method, failing(getattr(place, method), errno.EIO, 99))
        with pytest.raises(StorageError, match=rf"{name}: reading failed: Input/output error"):
            source.read_rows(0, 40)
