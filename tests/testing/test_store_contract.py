"""Each law of a store catches a backend that breaks it."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from cryoplug.errors import MissingInputError, OutputBusyError
from cryoplug.store.manifest import Manifest
from cryoplug.store.pairs import PairStore, create_store, open_store
from cryoplug.store.writer import StoreWriter
from cryoplug.testing import StoreContract

# Stores that each break one thing when they are read


class SwapsSides(PairStore):
    def read(self, indices, noisy, clean, *, split="train") -> None:
        super().read(indices, clean, noisy, split=split)


class Sorts(PairStore):
    def read(self, indices, noisy, clean, *, split="train") -> None:
        super().read(sorted(indices), noisy, clean, split=split)


class ReadsFromTheStart(PairStore):
    def read_crop(self, side, crop, out, *, split="train") -> None:
        if out.shape == self.patch_shape:
            super().read_crop(side, crop, out, split=split)
        else:
            super().read_crop(side, crop._replace(y=0, x=0), out, split=split)


class CountsTooFewBytes(PairStore):
    pair_bytes = 7


class WrapsAround(PairStore):
    def read(self, indices, noisy, clean, *, split="train") -> None:
        super().read([index % self.count(split) for index in indices], noisy, clean, split=split)


class TakesAnyBuffer(PairStore):
    def read(self, indices, noisy, clean, *, split="train") -> None:
        for_real = [np.empty((len(indices), *self.patch_shape), np.float32) for _ in range(2)]
        super().read(indices, *for_real, split=split)
        for given, pixels in zip((noisy, clean), for_real, strict=True):
            given.flat[: pixels.size] = pixels.flat[: given.size]


class NeverCloses(PairStore):
    def close(self) -> None:
        pass


class ForgetsMicrographs(PairStore):
    def micrograph_of(self, index: int, split: str = "train") -> int | None:
        return 0


class VerifiesNothing(PairStore):
    def verify(self) -> list[str]:
        return []


# Writers that each break one thing


def flattens(writer: StoreWriter) -> None:
    original = writer.append
    writer.append = lambda split, noisy, clean, window: original(  # type: ignore[method-assign]
        split, np.resize(noisy, (6, 10)), np.resize(clean, (6, 10)), window
    )


def discards_nothing(writer: StoreWriter) -> None:
    def discard() -> None:
        for split in ("train", "test"):
            writer._safe[split] = len(writer._windows[split])

    writer.discard = discard  # type: ignore[method-assign]


def discards_at_the_end(writer: StoreWriter) -> None:
    original = writer.finish

    def finish(**options) -> Manifest:
        writer.discard()
        return original(**options)

    writer.finish = finish  # type: ignore[method-assign]


def forgets_what_was_acknowledged(writer: StoreWriter) -> None:
    writer.__class__ = type("Forgets", (type(writer),), {"acknowledged": ()})


def aborts_by_closing(writer: StoreWriter) -> None:
    writer.abort = writer.close  # type: ignore[method-assign]


def takes_patches_when_closed(writer: StoreWriter) -> None:
    original = writer.append

    def append(split, noisy, clean, window) -> None:
        if not writer._closed:
            original(split, noisy, clean, window)

    writer.append = append  # type: ignore[method-assign]


def forgets_failures(writer: StoreWriter) -> None:
    original = writer.finish
    writer.finish = lambda failures=(): dataclasses.replace(  # type: ignore[method-assign]
        original(failures=()), failures=tuple(failures)
    )


def contract(kind: type[PairStore] = PairStore, spoil: Callable[[StoreWriter], None] = lambda writer: None) -> type:
    class Contract(StoreContract):
        def open(self, path: Path) -> PairStore:
            store = open_store(path)
            store.__class__ = kind
            return store

        def create(self, path: Path, head: Manifest, *, overwrite: bool = False) -> StoreWriter:
            writer = create_store(path, head, overwrite=overwrite)
            spoil(writer)
            return writer

    return Contract


class TellsNothing(StoreContract):
    def open(self, path: Path) -> PairStore:
        try:
            return open_store(path)
        except MissingInputError as error:
            raise FileNotFoundError("not there") from error


class DeletesFirst(StoreContract):
    def create(self, path: Path, head: Manifest, *, overwrite: bool = False) -> StoreWriter:
        if overwrite:
            for file in path.glob("*"):
                file.unlink()
        return create_store(path, head, overwrite=overwrite)


class AsksNobody(StoreContract):
    def create(self, path: Path, head: Manifest, *, overwrite: bool = False) -> StoreWriter:
        try:
            return create_store(path, head, overwrite=overwrite)
        except OutputBusyError:
            return create_store(path.with_name("elsewhere"), head, overwrite=overwrite)


class OpensHalfAStore(StoreContract):
    def open(self, path: Path) -> PairStore:
        with contextlib.suppress(FileNotFoundError):
            for partial in path.glob(".*_*.cryoplug-partial"):
                if partial.stat().st_size:
                    partial.rename(path / partial.name.removeprefix(".").removesuffix(".cryoplug-partial"))
        return open_store(path, patch_size=1)


UNFINISHED = "test_an_unfinished_store_opens_as_acknowledged_or_says_what_to_do"
DISCARDED = "test_a_discarded_micrograph_leaves_no_trace"
READ, ORDER = "test_what_is_read_is_what_was_appended", "test_patches_are_read_in_any_order"
BUSY = "test_a_second_writer_is_refused_while_the_first_lives"
DOUBLES = {
    "swaps sides": (contract(SwapsSides), {READ, ORDER, UNFINISHED, DISCARDED, BUSY}),
    "sorts": (contract(Sorts), {ORDER}),
    "reads from the start": (contract(ReadsFromTheStart), {"test_windows_of_an_image_are_parts_of_it"}),
    "counts too few bytes": (contract(CountsTooFewBytes), {"test_it_knows_what_it_holds"}),
    "wraps around": (contract(WrapsAround), {"test_patches_that_are_not_there_are_refused"}),
    "takes any buffer": (contract(TakesAnyBuffer), {"test_buffers_that_do_not_fit_are_refused"}),
    "never closes": (contract(NeverCloses), {"test_a_closed_store_gives_its_files_back_and_refuses"}),
    "forgets micrographs": (contract(ForgetsMicrographs), {"test_each_patch_knows_where_it_comes_from"}),
    "verifies nothing": (contract(VerifiesNothing), {"test_pixels_that_changed_on_the_disk_are_named"}),
    "tells nothing": (TellsNothing, {"test_what_is_not_there_is_told"}),
    "forgets failures": (contract(spoil=forgets_failures), {"test_the_manifest_comes_back"}),
    "flattens": (contract(spoil=flattens), {"test_patches_of_another_shape_are_refused"}),
    "discards nothing": (contract(spoil=discards_nothing), {DISCARDED}),
    "discards at the end": (
        contract(spoil=discards_at_the_end),
        {"test_a_store_with_patches_of_no_micrograph_is_not_finished"},
    ),
    "opens half a store": (OpensHalfAStore, {UNFINISHED}),
    "forgets what was acknowledged": (contract(spoil=forgets_what_was_acknowledged), {UNFINISHED}),
    "deletes first": (DeletesFirst, {"test_a_finished_store_is_replaced_only_when_asked"}),
    "asks nobody": (AsksNobody, {BUSY}),
    "aborts by closing": (contract(spoil=aborts_by_closing), {"test_abort_leaves_nothing"}),
    "takes patches when closed": (contract(spoil=takes_patches_when_closed), {"test_a_closed_writer_refuses"}),
}


@pytest.mark.parametrize("name", DOUBLES)
def test_a_store_with_a_fault_breaks_its_law_and_no_other(broken_laws, name: str) -> None:
    double, expected = DOUBLES[name]
    assert broken_laws(double) == expected


def test_every_law_has_a_double_that_breaks_it(laws) -> None:
    assert set.union(*(expected for _, expected in DOUBLES.values())) == laws(StoreContract)
