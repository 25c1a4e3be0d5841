"""The laws of a store: it is read as it was written, bit for bit; under its final name it is complete."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest

from cryoplug.errors import FormatError, MissingInputError, OutputBusyError, ShapeError, UsageError
from cryoplug.store.manifest import FailedInput, Manifest, MicrographEntry
from cryoplug.store.manifest_reader import manifest_from_json
from cryoplug.store.pairs import PairStore, create_store, open_store
from cryoplug.store.writer import StoreWriter
from cryoplug.testing.resources import holds

SHAPE = (6, 10)
"""(y, x) of the test patches."""
PLAN = (("train", 3), ("test", 2), ("train", 4))
"""Split and number of patches of each test micrograph."""
FAILURES = (FailedInput(3, "m3.mrc", "it was \u00fcnreadable", 4),)


class StoreContract:
    """Laws of a store; a subclass sets `format` and `dtype`, or overrides `create` and `open` for its own backend."""

    format: ClassVar[str] = "bin"
    """Format, an argument of `create_store`."""
    dtype: ClassVar[str] = "float32"
    """Type of the patches on the disk: float32 or float16."""

    def create(self, path: Path, head: Manifest, *, overwrite: bool = False) -> StoreWriter:
        """Begin a store."""
        return create_store(path, head, self.format, overwrite=overwrite)

    def open(self, path: Path) -> PairStore:
        """Open a store that is finished."""
        return open_store(path)

    # Laws of reading

    def test_what_is_read_is_what_was_appended(self, tmp_path: Path) -> None:
        """Every bit of it, in the order of the file."""
        self._write(tmp_path / "s")
        self._check_content(tmp_path / "s")

    def test_patches_are_read_in_any_order(self, tmp_path: Path) -> None:
        """Backwards, twice, none at all, with indices as NumPy integers, from several threads."""
        self._write(tmp_path / "s")
        everything = [self._expected("train", side) for side in (0, 1)]
        with self.open(tmp_path / "s") as store:
            count = store.count()
            orders: list[Any] = [
                [*reversed(range(count))],
                [2, 2, 0, 2],
                [],
                np.array([count - 1, 0]),
                range(1, count, 2),
            ]
            with ThreadPoolExecutor(4) as pool:
                results = pool.map(lambda order: self._read(store, order, "train"), orders * 8)
                for order, found in zip(orders * 8, results, strict=True):
                    for side in (0, 1):
                        assert np.array_equal(found[side], everything[side][np.array(order, int)]), f"order {order}"

    def test_windows_of_an_image_are_parts_of_it(self, tmp_path: Path) -> None:
        """Any window of any stored image, in float32 and in the type on the disk; a window that leaves it is refused."""
        self._write(tmp_path / "s")
        random = np.random.default_rng(0)
        with self.open(tmp_path / "s") as store:
            for index in range(store.count()):
                crop = store.crop_of(index)
                height, width = random.integers(1, SHAPE[0]), random.integers(1, SHAPE[1] + 1)
                y, x = int(random.integers(SHAPE[0] - height + 1)), int(random.integers(SHAPE[1] - width + 1))
                for side in (0, 1):
                    expected = self._expected("train", side)[index, y : y + height, x : x + width]
                    for dtype in (np.dtype(np.float32), store.dtype):
                        found = np.full((height, width), np.nan, dtype)
                        store.read_crop(side, crop._replace(y=crop.y + y, x=crop.x + x), found)
                        assert np.array_equal(found.astype(np.float32), expected), f"window {y}, {x} of patch {index}"
            rows, columns = store.image_shape(0)
            for y, x in ((rows, 0), (0, columns), (-1, 0), (0, -1)):
                with pytest.raises(IndexError):
                    store.read_crop(0, crop._replace(image=0, y=y, x=x), np.empty((1, 1), np.float32))

    def test_it_knows_what_it_holds(self, tmp_path: Path) -> None:
        """Counts, splits, shape, type and bytes of a pair."""
        self._write(tmp_path / "s")
        with self.open(tmp_path / "s") as store:
            assert (store.count(), store.count("train"), store.count("test")) == (7, 7, 2)
            assert (store.splits, store.patch_shape, store.dtype) == (("train", "test"), SHAPE, np.dtype(self.dtype))
            assert store.pair_bytes == 2 * SHAPE[0] * SHAPE[1] * np.dtype(self.dtype).itemsize
            assert store.files and all(path.is_file() for path in store.files)

    def test_patches_that_are_not_there_are_refused(self, tmp_path: Path) -> None:
        """With `IndexError`; one before the first is not the last."""
        self._write(tmp_path / "s")
        with self.open(tmp_path / "s") as store:
            for split, index in (("train", 7), ("train", -1), ("test", 2)):
                with pytest.raises(IndexError):
                    self._read(store, [index], split)

    def test_buffers_that_do_not_fit_are_refused(self, tmp_path: Path) -> None:
        """With `ShapeError`: another shape, another type, or not contiguous."""
        self._write(tmp_path / "s")
        good = np.empty((2, *SHAPE), np.float32)
        bad = (good[:1], good.astype(np.float64), np.empty((2, *SHAPE[::-1]), np.float32).transpose(0, 2, 1))
        with self.open(tmp_path / "s") as store:
            for buffer in bad:
                for pair in ((buffer, good), (good, buffer)):
                    with pytest.raises(ShapeError):
                        store.read([0, 1], *pair)

    def test_a_closed_store_gives_its_files_back_and_refuses(self, tmp_path: Path) -> None:
        """With `UsageError`; closing twice is allowed."""
        self._write(tmp_path / "s")
        store = self.open(tmp_path / "s")
        self._read(store, [0], "train")
        store.close()
        store.close()
        assert not [held for path in store.files for held in holds(path)], "after close, a file is still held"
        with pytest.raises(UsageError, match="closed"):
            self._read(store, [0], "train")

    def test_what_is_not_there_is_told(self, tmp_path: Path) -> None:
        """By a `MissingInputError` that names the path."""
        with pytest.raises(MissingInputError) as refused:
            self.open(tmp_path / "nowhere")
        assert str(tmp_path / "nowhere") in str(refused.value)

    # Laws of the record

    def test_the_manifest_comes_back(self, tmp_path: Path) -> None:
        """All of it, with failed inputs, also after a round trip through JSON."""
        written = self._write(tmp_path / "s")
        with self.open(tmp_path / "s") as store:
            assert store.manifest == written
            assert store.manifest is not None
            assert manifest_from_json(store.manifest.to_json()) == written
            assert [item.message for item in store.manifest.failures] == ["it was \u00fcnreadable"]
            assert dict(store.manifest.counts) == {"train": 7, "test": 2}

    def test_each_patch_knows_where_it_comes_from(self, tmp_path: Path) -> None:
        """Its micrograph and its window in it."""
        self._write(tmp_path / "s")
        with self.open(tmp_path / "s") as store:
            assert store.manifest is not None
            assert [store.micrograph_of(index) for index in range(7)] == [0, 0, 0, 2, 2, 2, 2]
            assert [store.micrograph_of(index, "test") for index in range(2)] == [1, 1]
            assert store.manifest.windows["train"][4] == (2, 1, 3)
            assert "m2.mrc" in store.describe(4)

    def test_pixels_that_changed_on_the_disk_are_named(self, tmp_path: Path) -> None:
        """`verify` names the micrograph of a changed byte, and no other."""
        self._write(tmp_path / "s")
        with self.open(tmp_path / "s") as store:
            assert store.verify() == []
            wanted = self._patch(2, 1, side=1).astype(np.dtype(self.dtype).newbyteorder("<")).tobytes()
            for path in store.files:
                payload = bytearray(path.read_bytes())
                place = payload.find(wanted)
                if place >= 0:
                    payload[place + 5] ^= 1
                    path.write_bytes(payload)
        with self.open(tmp_path / "s") as store:
            found = store.verify()
        assert len(found) == 1 and "m2.mrc" in found[0], f"one byte of m2.mrc was changed; verify says {found}"

    # Laws of writing

    def test_patches_of_another_shape_are_refused(self, tmp_path: Path) -> None:
        """With `ShapeError`, and nothing of them is counted."""
        with self.create(tmp_path / "s", self._head()) as writer:
            for pair in ((np.zeros((6, 9)), np.zeros(SHAPE)), (np.zeros(SHAPE), np.zeros(SHAPE[::-1]))):
                with pytest.raises(ShapeError):
                    writer.append("train", pair[0], pair[1], (0, 0))
            assert writer.count("train") == 0

    def test_a_discarded_micrograph_leaves_no_trace(self, tmp_path: Path) -> None:
        """If it turned out to be unreadable after some of its patches were written."""
        with self.create(tmp_path / "s", self._head()) as writer:
            for index in range(len(PLAN)):
                for split in ("train", "test"):
                    writer.append(split, np.full(SHAPE, 7.0), np.full(SHAPE, 9.0), (0, 0))
                writer.discard()
                self._append(writer, index)
            interrupted = writer.finish(failures=FAILURES)
        assert interrupted.fingerprint() == self._write(tmp_path / "t").fingerprint()
        self._check_content(tmp_path / "s")

    def test_a_store_with_patches_of_no_micrograph_is_not_finished(self, tmp_path: Path) -> None:
        """`UsageError`: acknowledge or discard them first."""
        with self.create(tmp_path / "s", self._head()) as writer:
            self._append(writer, 0)
            writer.append("train", np.zeros(SHAPE), np.zeros(SHAPE), (0, 0))
            with pytest.raises(UsageError):
                writer.finish()

    def test_an_unfinished_store_opens_as_acknowledged_or_says_what_to_do(self, tmp_path: Path) -> None:
        """And the same writer, started again, goes on after the acknowledged patches."""
        with self.create(tmp_path / "s", self._head()) as writer:
            self._append(writer, 0)
            writer.append("test", np.zeros(SHAPE), np.zeros(SHAPE), (0, 0))
        try:
            with self.open(tmp_path / "s") as store:
                assert (store.count("train"), store.count("test")) == (3, 0)
        except FormatError as error:
            assert "unfinished" in str(error) and "run" in str(error), f"what to do is not said: {error}"
        with self.create(tmp_path / "s", self._head()) as writer:
            done = len(writer.acknowledged)
            assert [entry.name for entry in writer.acknowledged] == ["m0.mrc"][:done]
            for index in range(done, len(PLAN)):
                self._append(writer, index)
            resumed = writer.finish(failures=FAILURES)
        assert resumed.fingerprint() == self._write(tmp_path / "t").fingerprint()
        self._check_content(tmp_path / "s")

    def test_a_finished_store_is_replaced_only_when_asked(self, tmp_path: Path) -> None:
        """It stays unchanged until the new one is complete."""
        self._write(tmp_path / "s")
        with pytest.raises(UsageError, match="overwrite"):
            self.create(tmp_path / "s", self._head()).close()
        with self.create(tmp_path / "s", self._head(), overwrite=True) as writer:
            self._append(writer, 1)
            with self.open(tmp_path / "s") as old:
                assert (old.count("train"), old.count("test")) == (7, 2)
            writer.finish()
        with self.open(tmp_path / "s") as new:
            assert (new.count("train"), new.count("test")) == (0, 2)

    def test_a_second_writer_is_refused_while_the_first_lives(self, tmp_path: Path) -> None:
        """With `OutputBusyError`; the first goes on undisturbed."""
        with self.create(tmp_path / "s", self._head()) as writer:
            self._append(writer, 0)
            with pytest.raises(OutputBusyError):
                self.create(tmp_path / "s", self._head()).close()
            for index in range(1, len(PLAN)):
                self._append(writer, index)
            writer.finish()
        self._check_content(tmp_path / "s")

    def test_abort_leaves_nothing(self, tmp_path: Path) -> None:
        """No file under any name."""
        with self.create(tmp_path / "s", self._head()) as writer:
            self._append(writer, 0)
            writer.abort()
        left = [path for path in tmp_path.rglob("*") if path.is_file()]
        assert not left, f"abort left {left}"

    def test_a_closed_writer_refuses(self, tmp_path: Path) -> None:
        """With `UsageError`, because appended patches would be lost."""
        writer = self.create(tmp_path / "s", self._head())
        self._append(writer, 0)
        writer.close()
        writer.close()
        with pytest.raises(UsageError, match="closed"):
            self._append(writer, 1)

    def _head(self) -> Manifest:
        return Manifest(
            SHAPE,
            self.dtype,
            pairs="noise",
            normalize="none",
            seed=3,
            stride=1,
            software="test",
            request={"a": [1, None]},
        )

    def _patch(self, micrograph: int, number: int, *, side: int) -> np.ndarray:
        """Make a patch with all kinds of numbers: signed zeros, the smallest and the largest."""
        pixels = np.random.default_rng([micrograph, number, side]).standard_normal(SHAPE).astype(np.float32)
        kind = np.finfo(self.dtype)
        pixels.flat[:6] = [0.0, -0.0, kind.max, kind.min, kind.smallest_subnormal, kind.tiny]
        return pixels

    def _append(self, writer: StoreWriter, micrograph: int) -> None:
        split, count = PLAN[micrograph]
        for number in range(count):
            pair = [self._patch(micrograph, number, side=side) for side in (0, 1)]
            writer.append(split, pair[0], pair[1], (number, 3))
        size = None if micrograph == 1 else 1.25
        writer.acknowledge(
            MicrographEntry(f"m{micrograph}.mrc", split, (20, 30), size, {"kind": "none"}, index=micrograph)
        )

    def _write(self, path: Path) -> Manifest:
        with self.create(path, self._head()) as writer:
            for index in range(len(PLAN)):
                self._append(writer, index)
            return writer.finish(failures=FAILURES)

    def _check_content(self, path: Path) -> None:
        with self.open(path) as store:
            assert (store.count("train"), store.count("test")) == (7, 2)
            for split in ("train", "test"):
                noisy, clean = self._read(store, range(store.count(split)), split)
                for side, found in enumerate((noisy, clean)):
                    assert found.tobytes() == self._expected(split, side).tobytes(), f"{split}: other pixels"

    def _expected(self, split: str, side: int) -> np.ndarray:
        patches = [
            self._patch(micrograph, number, side=side)
            for micrograph, (where, count) in enumerate(PLAN)
            for number in range(count)
            if where == split
        ]
        return np.stack(patches).astype(self.dtype).astype(np.float32)

    @staticmethod
    def _read(store: PairStore, indices: Any, split: str) -> tuple[np.ndarray, np.ndarray]:
        noisy, clean = (np.full((len(indices), *SHAPE), np.nan, np.float32) for _ in range(2))
        store.read(indices, noisy, clean, split=split)
        return noisy, clean
