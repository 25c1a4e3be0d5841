"""What stands in the output already: the same store, another one, files of others."""

from __future__ import annotations

import pytest

from cryoplug.errors import UsageError
from cryoplug.workflows.convert import convert
from workflows.convert.made_inputs import (
    bad_inputs,
    image,
    request,
    write,
)


@pytest.mark.parametrize("format", ["bin", "hdf5"])
def test_the_same_request_finds_its_store_complete_and_another_is_refused(tmp_path, format):
    folder = bad_inputs(tmp_path / "in")
    asked = request(folder, tmp_path / "s", format=format)
    first = convert(asked)
    state = {item: item.stat().st_mtime_ns for item in (tmp_path / "s").iterdir()}
    second = convert(asked)
    assert {item: item.stat().st_mtime_ns for item in (tmp_path / "s").iterdir()} == state
    assert {item.status for item in second.files} == {"skipped", "failed"}
    assert second.exit_code == first.exit_code == 3
    assert second.details["complete"]
    assert second.details["fingerprint"] == first.details["fingerprint"]
    with pytest.raises(UsageError, match="made with other seed, stride; give --overwrite"):
        convert(request(folder, tmp_path / "s", format=format, seed=1, stride=40))
    write(folder / "mic_9.mrc", image(9))
    with pytest.raises(UsageError, match="made with other inputs"):
        convert(asked)
    third = convert(request(folder, tmp_path / "s", format=format, overwrite=True))
    assert third.details["micrographs"] == 3
    assert convert(asked).details["fingerprint"] == third.details["fingerprint"]


def test_foreign_files_in_the_output_are_not_replaced_without_being_asked(tmp_path):
    path = write(tmp_path / "a.mrc", image(1))
    (tmp_path / "s").mkdir()
    (tmp_path / "s" / "noisy_train.bin").write_bytes(b"precious")
    with pytest.raises(UsageError, match=r"noisy_train\.bin: exists already"):
        convert(request(path, tmp_path / "s"))
    assert (tmp_path / "s" / "noisy_train.bin").read_bytes() == b"precious"
    convert(request(path, tmp_path / "h", format="hdf5"))
    for overwrite in (False, True):
        with pytest.raises(UsageError, match="a store of the other format"):
            convert(request(path, tmp_path / "h", overwrite=overwrite))
    (tmp_path / "j").mkdir()
    (tmp_path / "j" / "dataset.json").write_text("{}")
    with pytest.raises(UsageError, match="it is in the way: give --overwrite"):
        convert(request(path, tmp_path / "j"))


def test_an_input_is_never_the_output(tmp_path):
    path = write(tmp_path / "in" / "dataset.h5.mrc", image(1))
    path = path.rename(tmp_path / "in" / "dataset.h5")
    before = path.read_bytes()
    for overwrite in (False, True):
        with pytest.raises(UsageError, match="would be overwritten"):
            convert(request(path, tmp_path / "in", format="hdf5", overwrite=overwrite))
    assert path.read_bytes() == before
