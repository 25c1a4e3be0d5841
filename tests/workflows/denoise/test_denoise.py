"""What a denoised micrograph is, and what is said when there can be none."""

from __future__ import annotations

from pathlib import Path

import mrcfile
import numpy as np
import pytest

from cryoplug.errors import DeviceError, MissingInputError, UsageError
from cryoplug.formats.mrc import write_mrc
from cryoplug.inference.denoiser import Denoiser
from cryoplug.models.checkpoint import Checkpoint, save_checkpoint
from cryoplug.models.registry import model_spec
from cryoplug.workflows.denoise import DenoiseRequest
from workflows.denoise.denoising import go, micrographs, partials, pixels, statuses


def test_the_output_is_a_valid_mrc_of_the_same_shape_sampling_and_units(here, checkpoints, capsys):
    (path,) = micrographs(here, "a")
    batch = go(checkpoints[0], path)
    assert batch.exit_code == 0 and statuses(batch) == ["done"]
    assert mrcfile.validate("out/a.mrc"), capsys.readouterr().out
    with mrcfile.open("out/a.mrc") as mrc:
        wanted = Denoiser.from_checkpoint(checkpoints[0], device="cpu", threads=1).denoise(pixels(0))
        assert mrc.data.dtype == np.float32 and np.allclose(mrc.data, wanted, rtol=0, atol=1e-4)
        assert float(mrc.voxel_size.x) == pytest.approx(1.25)
        label = mrc.get_labels()[-1]
    sha = batch.details["checkpoint_sha256"][:12]
    assert label.startswith("cryoplug ") and label.endswith(f" cryo_cnn sha256:{sha}")


def test_normalize_none_applies_the_bare_network(here, checkpoints):
    (path,) = micrographs(here, "a")
    go(checkpoints[0], path, normalize="none")
    wanted = Denoiser.from_checkpoint(checkpoints[0], normalize="none", device="cpu").denoise(pixels(0))
    assert np.allclose(mrcfile.read("out/a.mrc"), wanted, rtol=1e-5, atol=1e-4)


def test_percentile_that_clips_much_warns_and_names_zscore(here, checkpoints):
    write_mrc(here / "half_negative.mrc", pixels(0) - 50)
    (result,) = go(checkpoints[0], here / "half_negative.mrc", normalize="percentile").files
    assert result.status == "done"
    assert "% of the pixels" in result.message and "--normalize zscore" in result.message


def test_an_ordinary_micrograph_gives_no_warning(here):
    micrographs(here, "a")
    module = model_spec("residual_cnn").build(seed=1)
    weights = {name: tensor.numpy() for name, tensor in module.state_dict().items()}
    weights["conv12.weight"][:], weights["conv12.bias"][:] = 0, 0  # it predicts no noise: nothing is changed
    save_checkpoint(here / "run" / "epoch_0001", Checkpoint("residual_cnn", weights, normalize="zscore"), 0.5)
    for kind in ("percentile", "zscore", "none"):
        (result,) = go(here / "run", here / "a.mrc", normalize=kind, output=kind).files
        assert result.message == ""


def test_same_names_in_two_folders_keep_their_folders(here, checkpoints):
    for folder in ("one", "two"):
        (here / folder).mkdir()
        micrographs(here / folder, "a")
    batch = go(checkpoints[0], "one/a.mrc", "two/a.mrc")
    assert [item.output for item in batch.files] == [Path("out/one/a.mrc"), Path("out/two/a.mrc")]


def test_bad_files_are_named_and_never_stop_the_others(here, checkpoints):
    paths = micrographs(here, "abcde")
    paths[1].write_bytes(paths[1].read_bytes()[:3000])
    write_mrc(paths[2], np.full((70, 90), 7.0))
    with_nan = pixels(3)
    with_nan[5, 6] = np.nan
    write_mrc(paths[3], with_nan)
    batch = go(checkpoints[0], *paths, "missing.mrc")
    assert batch.exit_code == 3
    assert statuses(batch) == ["done", "failed", "failed", "failed", "done", "failed"]
    for result, word in zip(
        batch.files, ["", "bytes", "all 6300 pixels are 7", "(5, 6)", "", "no such file"], strict=True
    ):
        assert word in result.message
        assert result.status == "done" or str(result.input.name) in result.message
    assert sorted(path.name for path in Path("out").glob("*.mrc")) == ["a.mrc", "e.mrc"]
    assert not partials(here)


def test_when_no_input_is_usable_the_exit_code_is_4(here, checkpoints):
    (here / "a.mrc").write_text("no micrograph")
    assert go(checkpoints[0], "a.mrc", "b.mrc").exit_code == 4


def test_a_checkpoint_that_is_not_there_is_named_before_anything_runs(here):
    micrographs(here, "a")
    with pytest.raises(MissingInputError, match="nowhere"):
        go(Path("nowhere"), "a.mrc")
    assert not Path("out").exists()


def test_a_gpu_that_is_not_there_is_a_device_error(here, checkpoints):
    micrographs(here, "a")
    with pytest.raises(DeviceError, match="cuda:99"):
        go(checkpoints[0], "a.mrc", device="cuda:99")


def test_all_wrong_options_are_named_at_once():
    with pytest.raises(UsageError, match=r"no input.*--normalize 'x'.*--tile -1.*--threads -1"):
        DenoiseRequest((), Path("c"), Path("o"), normalize="x", tile=-1, threads=-1)


def test_real_micrographs_come_through(shared_data, seed_checkpoints, here):
    names = ["micrographs/Ucsf_stack_1142_DW.mrc", "halves_apoferritin/May08_030502_ODD.mrc"]
    batch = go(seed_checkpoints / "cryo_cnn", *(shared_data / name for name in names), normalize="zscore")
    assert statuses(batch) == ["done", "done"]
    for name in names:
        out = Path("out", Path(name).name)
        assert mrcfile.read(out).shape == mrcfile.read(shared_data / name).shape
        assert np.isfinite(mrcfile.read(out)).all()
