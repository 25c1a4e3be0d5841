"""Each law of a format catches a reader that breaks it."""

from __future__ import annotations

import dataclasses
import os
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from cryoplug import extensions
from cryoplug.core.micrograph import MicrographSource, MovieFrame, MovieSource
from cryoplug.core.results import Finding
from cryoplug.core.statistics import scan_pixels
from cryoplug.errors import FormatError, InputError
from cryoplug.formats.registry import FormatSpec
from cryoplug.formats.validation import pixel_findings, validate_by_reading
from cryoplug.testing import FormatContract, MovieFormatContract

HEAD = struct.Struct("<4s3if")  # magic, frames, height, width, pixel size


def write_toy(path: Path, frames: np.ndarray) -> None:
    path.write_bytes(HEAD.pack(b"TOY1", *frames.shape, 2.5) + frames.astype("<f4").tobytes())


class Toy(MicrographSource):
    """A reader without a fault."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.descriptor = os.open(path, os.O_RDONLY)
        try:
            self.start()
        except BaseException:
            self.close()
            raise

    def start(self) -> None:
        head = os.pread(self.descriptor, HEAD.size, 0)
        if len(head) < HEAD.size or not head.startswith(b"TOY1"):
            raise FormatError(f"{self.path}: not a toy")
        _, count, height, width, size = HEAD.unpack(head)
        self.check(count, height, width, os.fstat(self.descriptor).st_size)
        self.shape, self.dtype = (height, width), np.dtype("<f4")
        self.pixel_size_angstrom = size if 0 < size < 1e6 else None

    def check(self, count: int, height: int, width: int, size: int) -> None:
        if min(count, height, width) < 1 or HEAD.size + 4 * count * height * width != size:
            raise FormatError(f"{self.path}: size {size} does not suit {count} x {height} x {width}")
        if count != 1:
            raise FormatError(f"{self.path}: {count} sections")

    def read_rows(self, start: int, stop: int) -> np.ndarray:
        self.check_rows(start, stop)
        row = 4 * self.shape[1]
        payload = os.pread(self.descriptor, (stop - start) * row, HEAD.size + start * row)
        return self.unpack(payload, (stop - start) * row).reshape(stop - start, self.shape[1])

    def unpack(self, payload: bytes, wanted: int) -> np.ndarray:
        if len(payload) < wanted:
            raise FormatError(f"{self.path}: became shorter")
        return np.frombuffer(payload, "<f4").astype(np.float32)

    def close(self) -> None:
        if self.descriptor >= 0:
            os.close(self.descriptor)
        self.descriptor = -1


class ToyMovie(MovieSource):
    def __init__(self, path: Path) -> None:
        self.path, payload = path, path.read_bytes()
        if len(payload) < HEAD.size or not payload.startswith(b"TOY1"):
            raise FormatError(f"{path}: not a toy")
        _, self.frame_count, height, width, size = HEAD.unpack(payload[: HEAD.size])
        if min(self.frame_count, height, width) < 1:
            raise FormatError(f"{path}: no image")
        self.frame_shape, self.dtype = (height, width), np.dtype("<f4")
        self.pixel_size_angstrom = size if 0 < size < 1e6 else None
        self.payload = self.completed(payload[HEAD.size :], self.frame_count * height * width * 4)

    def completed(self, payload: bytes, wanted: int) -> bytes:
        if len(payload) != wanted:
            raise FormatError(f"{self.path}: {len(payload)} bytes of pixels, not {wanted}")
        return payload

    def read_frame(self, index: int) -> np.ndarray:
        self.check_frame(index)
        return np.frombuffer(self.payload, "<f4").astype(np.float32).reshape(-1, *self.frame_shape)[index]

    def close(self) -> None:
        self.payload = b""


def validate(path: Path, reader: type[Toy] = Toy) -> list[Finding]:
    try:
        with reader(path) as source:
            return pixel_findings(scan_pixels(source))
    except InputError as error:
        return [Finding("error", "file", str(error).removeprefix(f"{path}: "))]


def sniff(head: bytes) -> bool:
    return head.startswith(b"TOY1")


TOY = FormatSpec("toy", "a toy", (".toy",), Toy, validate, sniff)


# Readers that each break one thing


class NumpyShape(Toy):
    def start(self) -> None:
        super().start()
        self.shape = tuple(np.array(self.shape))


class Nanometre(Toy):
    def start(self) -> None:
        super().start()
        self.pixel_size_angstrom = self.pixel_size_angstrom and self.pixel_size_angstrom / 10


class ReadsAll(Toy):
    def start(self) -> None:
        super().start()
        self.everything = os.pread(self.descriptor, os.fstat(self.descriptor).st_size, 0)


class SharedArray(Toy):
    kept: np.ndarray | None = None

    def read_rows(self, start: int, stop: int) -> np.ndarray:
        self.kept = super().read_rows(0, self.shape[0]) if self.kept is None else self.kept
        self.check_rows(start, stop)
        return self.kept[start:stop]


class FlatWhenEmpty(Toy):
    def read_rows(self, start: int, stop: int) -> np.ndarray:
        rows = super().read_rows(start, stop)
        return rows if stop > start else rows.ravel()


class NoCheckOfRows(Toy):
    def check_rows(self, start: int, stop: int) -> None:
        pass


class OneAtATime(Toy):
    last: Toy | None = None

    def start(self) -> None:
        super().start()
        OneAtATime.last = self

    def read_rows(self, start: int, stop: int) -> np.ndarray:
        rows = super().read_rows(start, stop)
        return rows if OneAtATime.last is self else np.zeros_like(rows)


class NeverCloses(Toy):
    def close(self) -> None:
        pass


class ClosesOnce(Toy):
    def close(self) -> None:
        os.close(self.descriptor)


class LeaksWhenRefused(Toy):
    def __init__(self, path: Path) -> None:
        self.path, self.descriptor = path, os.open(path, os.O_RDONLY)
        self.start()


class PadsWithZeros(Toy):
    def unpack(self, payload: bytes, wanted: int) -> np.ndarray:
        return super().unpack(payload.ljust(wanted, b"\0"), wanted)


class BelievesTheHeader(Toy):
    def check(self, count: int, height: int, width: int, size: int) -> None:
        self.buffer = np.zeros(max(0, height) * max(0, width), np.uint8)
        super().check(count, height, width, size)


class DoesNotNameThePath(Toy):
    def check(self, count: int, height: int, width: int, size: int) -> None:
        try:
            super().check(count, height, width, size)
        except FormatError as error:
            raise FormatError("the size does not suit") from error


def changed(**fields: object) -> FormatSpec:
    return dataclasses.replace(TOY, **fields)


def reader(kind: type[Toy]) -> FormatSpec:
    return changed(open=kind, validate=lambda path: validate(path, kind))


def sniff_needs_more(head: bytes) -> bool:
    return len(head) > 64 and sniff(head)


def sniff_is_greedy(head: bytes) -> bool:
    return sniff(head) or head.startswith(b"PK")


def sniff_fails_on_short_heads(head: bytes) -> bool:
    return head[0] == ord("T") and sniff(head)


def says_too_much(path: Path) -> list[Finding]:
    return [Finding("warning", "file", "I do not like it"), *validate(path)]


def says_one_thing(path: Path) -> list[Finding]:
    return validate(path)[:1]


def says_nothing(path: Path) -> list[Finding]:
    return [item for item in validate(path) if item.field == "pixels"]


def raises(path: Path) -> list[Finding]:
    with Toy(path) as source:
        return pixel_findings(scan_pixels(source))


def repeats_the_path(path: Path) -> list[Finding]:
    return [dataclasses.replace(item, message=f"{path}: {item.message}") for item in validate(path)]


CUT, CUT_LATER = "test_a_cut_file_is_refused_or_gives_its_pixels", "test_a_file_cut_while_it_is_read_is_refused"
GARBAGE, NEVER_RAISES = "test_garbage_is_refused", "test_the_validator_never_raises"
CLOSES = "test_it_closes_its_file"
DOUBLES = {
    "shape of NumPy numbers": (reader(NumpyShape), {"test_the_header_tells_what_the_pixels_are"}),
    "pixel size in nm": (reader(Nanometre), {"test_the_pixel_size_is_that_of_the_file"}),
    "reads all at once": (reader(ReadsAll), {"test_opening_reads_no_pixels"}),
    "gives its own array away": (reader(SharedArray), {"test_rows_are_those_that_were_written"}),
    "flat when empty": (reader(FlatWhenEmpty), {"test_rows_in_any_windows_are_rows_of_the_whole"}),
    "no check of rows": (reader(NoCheckOfRows), {"test_rows_outside_the_image_are_refused"}),
    "one at a time": (reader(OneAtATime), {"test_two_readers_of_one_file_do_not_disturb_each_other"}),
    "never closes": (reader(NeverCloses), {CLOSES}),
    "closes once": (reader(ClosesOnce), {CLOSES}),
    "leaks when it refuses": (reader(LeaksWhenRefused), {CLOSES}),
    "pads with zeros": (reader(PadsWithZeros), {CUT_LATER}),
    "believes the header": (reader(BelievesTheHeader), {GARBAGE, NEVER_RAISES}),
    "does not name the path": (reader(DoesNotNameThePath), {CUT, GARBAGE, NEVER_RAISES}),
    "sniff needs more": (changed(sniff=sniff_needs_more), {"test_sniff_knows_its_own_files"}),
    "sniff is greedy": (changed(sniff=sniff_is_greedy), {"test_sniff_leaves_other_files_alone"}),
    "sniff fails": (changed(sniff=sniff_fails_on_short_heads), {"test_sniff_leaves_other_files_alone"}),
    "capital ending": (changed(extensions=(".TOY",)), {"test_the_registry_finds_it_by_name_and_by_content"}),
    "validator says too much": (changed(validate=says_too_much), {"test_the_validator_finds_nothing_wrong_with_a_sound_file"}),
    "validator says one thing": (changed(validate=says_one_thing), {"test_the_validator_lists_everything"}),
    "validator says nothing": (changed(validate=says_nothing), {NEVER_RAISES}),
    "validator raises": (changed(validate=raises), {NEVER_RAISES}),
    "validator repeats the path": (changed(validate=repeats_the_path), {"test_the_validator_lists_everything", NEVER_RAISES}),
    "movies without their laws": (
        changed(open_movie=ToyMovie),
        {"test_a_format_with_movies_keeps_the_laws_of_movies"},
    ),
}  # fmt: skip


def contract(toy: FormatSpec) -> type[FormatContract]:
    class Contract(FormatContract):
        spec = toy
        pixel_size_angstrom = 2.5

        def write(self, path: Path, pixels: np.ndarray) -> None:
            write_toy(path, pixels[None])

    return Contract


@pytest.fixture
def install(monkeypatch: pytest.MonkeyPatch) -> Callable[[FormatSpec], None]:
    return lambda spec: monkeypatch.setattr(extensions, "load_all", lambda group, **_: {spec.id: spec})


def test_a_format_without_a_fault_keeps_all_laws(install, broken_laws) -> None:
    install(TOY)
    assert broken_laws(contract(TOY)) == set()


def test_a_format_that_is_not_installed_is_told(broken_laws) -> None:
    assert broken_laws(contract(TOY)) == {"test_the_registry_finds_it_by_name_and_by_content"}


@pytest.mark.parametrize("name", DOUBLES)
def test_a_format_with_a_fault_breaks_its_law_and_no_other(install, broken_laws, name: str) -> None:
    spec, expected = DOUBLES[name]
    install(spec)
    assert broken_laws(contract(spec)) == expected


# Movies


class NextFrame(ToyMovie):
    def read_frame(self, index: int) -> np.ndarray:
        self.check_frame(index)
        return super().read_frame((index + 1) % self.frame_count)


class FromTheEnd(ToyMovie):
    def check_frame(self, index: int) -> None:
        if index >= 0:
            super().check_frame(index)


class HoldsSingles(ToyMovie):
    def __init__(self, path: Path) -> None:
        super().__init__(path)
        if self.frame_count == 1 and HEAD.size + 4 * np.prod(self.frame_shape) == path.stat().st_size:
            self.descriptor = os.open(path, os.O_RDONLY)


class PadsFrames(ToyMovie):
    def completed(self, payload: bytes, wanted: int) -> bytes:
        if self.frame_count > 1 and wanted < 1 << 20:
            payload = payload.ljust(wanted, b"\0")
        return super().completed(payload, wanted)


def first_frame(path: Path) -> MicrographSource:
    movie = ToyMovie(path)
    return MovieFrame(movie, 0)


def movie_spec(kind: type[ToyMovie], **fields: object) -> FormatSpec:
    return changed(open_movie=kind, validate=lambda path: validate_by_reading(path, ToyMovie), **fields)


MOVIES = {
    "next frame": (movie_spec(NextFrame), {"test_frames_are_those_that_were_written"}),
    "counts from the end": (movie_spec(FromTheEnd), {"test_frames_that_are_not_there_are_refused"}),
    "first frame for all": (
        movie_spec(ToyMovie, open=first_frame),
        {"test_a_movie_is_not_taken_for_a_micrograph", "test_opening_reads_no_pixels"},
    ),
    "holds single images": (movie_spec(HoldsSingles), {"test_an_image_is_a_movie_of_one_frame"}),
    "pads frames": (movie_spec(PadsFrames), {"test_a_cut_movie_is_refused_or_gives_its_frames"}),
}  # fmt: skip


def movie_contract(toy: FormatSpec) -> type[MovieFormatContract]:
    class Contract(MovieFormatContract):
        spec = toy
        pixel_size_angstrom = 2.5

        def write_movie(self, path: Path, frames: np.ndarray) -> None:
            write_toy(path, frames)

    return Contract


def test_a_movie_format_without_a_fault_keeps_all_laws(install, broken_laws) -> None:
    spec = movie_spec(ToyMovie)
    install(spec)
    assert broken_laws(movie_contract(spec)) == set()


@pytest.mark.parametrize("name", MOVIES)
def test_a_movie_format_with_a_fault_breaks_its_law(install, broken_laws, name: str) -> None:
    spec, expected = MOVIES[name]
    install(spec)
    assert broken_laws(movie_contract(spec)) == expected


def test_every_law_has_a_double_that_breaks_it(laws) -> None:
    broken = set.union(*(expected for _, expected in (*DOUBLES.values(), *MOVIES.values())))
    assert broken == laws(MovieFormatContract)
