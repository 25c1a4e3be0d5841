"""Inputs that cannot be used are named, and the others are done."""

from __future__ import annotations

import numpy as np
import pytest

from cryoplug.errors import MissingInputError, StorageError
from cryoplug.store.pairs import open_store
from cryoplug.workflows.convert import convert
from cryoplug.workflows.convert import run as run_module
from workflows.convert.made_inputs import (
    GRID,
    SHAPE,
    bad_inputs,
    folder_of,
    names,
    patches,
    request,
    write,
)


def test_bad_micrographs_are_named_and_the_others_are_done(tmp_path):
    folder = bad_inputs(tmp_path / "in")
    seen = []
    result = convert(request([folder, folder / "gone.mrc"], tmp_path / "s", test_split=0), seen.append)
    assert tuple(seen) == result.files
    message = {item.input.name: item.message for item in result.failed}
    assert set(message) == {"mic_const.mrc", "mic_nan.mrc", "mic_small.mrc", "mic_cut.mrc", "mic_text.mrc", "gone.mrc"}
    assert all(name in text for name, text in message.items())
    assert "smaller than one patch of 64x64; give --patch-size 63 or less" in message["mic_small.mrc"]
    assert "NaN" in message["mic_nan.mrc"]
    assert result.exit_code == 3
    good = folder_of(tmp_path / "good", 2)
    assert convert(request(good, tmp_path / "t", test_split=0)).details["train"] == result.details["train"]
    assert [f.name for f in open_store(tmp_path / "s").manifest.failures] == [
        item.input.name for item in result.failed
    ]  # fmt: skip


def test_a_file_that_breaks_in_the_middle_leaves_none_of_its_patches(tmp_path, monkeypatch):
    folder = folder_of(tmp_path / "in", 3)
    convert(request(folder, tmp_path / "t", test_split=0))
    real = run_module.patch_pairs

    def breaking(opened, *rest, **options):
        for k, item in enumerate(real(opened, *rest, **options)):
            if opened.pair.index == 1 and k == 7:
                raise StorageError("mic_1.mrc: input/output error")
            yield item

    monkeypatch.setattr(run_module, "patch_pairs", breaking)
    result = convert(request(folder, tmp_path / "s", test_split=0))
    assert [item.status for item in result.files] == ["done", "failed", "done"]
    expected = patches(tmp_path / "t", "noisy_train.bin")
    kept = np.concatenate([expected[: len(GRID)], expected[2 * len(GRID) :]])
    np.testing.assert_array_equal(patches(tmp_path / "s", "noisy_train.bin"), kept)
    with open_store(tmp_path / "s") as store:
        assert store.verify() == []


@pytest.mark.parametrize("format", ["bin", "hdf5"])
def test_when_no_input_is_usable_nothing_is_left(tmp_path, format):
    path = write(tmp_path / "a.mrc", np.ones(SHAPE))
    result = convert(request(path, tmp_path / "s", format=format))
    assert result.exit_code == 4
    assert names(tmp_path / "s") == set()


def test_a_pattern_that_matches_nothing_is_an_error(tmp_path):
    with pytest.raises(MissingInputError):
        convert(request([tmp_path / "no*.mrc"], tmp_path / "s"))
