from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import mrcfile
import numpy as np
import pytest
import starfile
from click.testing import CliRunner

from cryoplug.cli.simulate import simulate as command
from cryoplug.errors import FormatError, StorageError, UsageError
from cryoplug.formats.mrc import write_mrc
from cryoplug.formats.star import read_star
from cryoplug.simulation.micrograph import SimulationSettings, simulate_micrograph
from cryoplug.workflows.simulate import KINDS, SimulateRequest, read_density, simulate

SETTINGS = SimulationSettings(size_px=96, pixel_size_angstrom=5.0, seed=1)


def everything(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


@pytest.fixture
def request_(tmp_path) -> SimulateRequest:
    return SimulateRequest(output=tmp_path / "out", count=2, settings=SETTINGS)


def test_files_hold_what_the_simulation_made(request_):
    result = simulate(request_)
    assert result.exit_code == 0
    assert len(everything(request_.output)) == 2 * len(KINDS) + 1
    for index in range(2):
        micrograph = simulate_micrograph(SETTINGS, index)
        for kind in KINDS:
            path = request_.output / kind / f"mic_{index + 1:04d}.mrc"
            with mrcfile.open(path) as mrc:
                assert np.array_equal(mrc.data, getattr(micrograph, kind))
                assert float(mrc.voxel_size.x) == pytest.approx(5.0)
            assert mrcfile.validate(path)


def test_star_lists_every_micrograph_with_optics_and_defocus(request_):
    star = read_star(simulate(request_).outputs[0])
    optics, table = star.blocks
    assert [block.name for block in star.blocks] == ["optics", "micrographs"]
    assert [float(value) for value in optics.column("rlnMicrographPixelSize")] == [5.0]
    names = table.column("rlnMicrographName")
    assert names == [str(request_.output / "noisy" / f"mic_000{n}.mrc") for n in (1, 2)]
    for index, value in enumerate(table.column("rlnDefocusU")):
        assert float(value) == pytest.approx(1e4 * SETTINGS.defocus_of(index), abs=0.01)


def test_paths_in_the_star_are_as_the_output_was_given(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    star = read_star(simulate(SimulateRequest(output=Path("Simulate/job001"), count=1, settings=SETTINGS)).outputs[0])
    assert star.blocks[1].column("rlnMicrographName") == ["Simulate/job001/noisy/mic_0001.mrc"]


def test_same_request_writes_the_same_pixels_and_star_elsewhere(request_, tmp_path):
    simulate(request_)
    simulate(dataclasses.replace(request_, output=tmp_path / "again"))
    first, second = everything(request_.output), everything(tmp_path / "again")
    assert first.keys() == second.keys()
    # Past the header, whose labels may hold the time.
    assert all(first[name][1024:] == second[name][1024:] for name in first if name.endswith(".mrc"))


def test_second_run_skips_what_is_finished(request_):
    simulate(request_)
    before = everything(request_.output)
    result = simulate(request_)
    assert [item.status for item in result.files] == ["skipped", "skipped"]
    assert everything(request_.output) == before


def test_stopped_run_goes_on_and_a_larger_count_adds(request_):
    simulate(request_)
    (request_.output / "clean" / "mic_0002.mrc").unlink()
    result = simulate(dataclasses.replace(request_, count=3))
    assert [item.status for item in result.files] == ["skipped", "done", "done"]


def test_files_of_other_settings_are_refused_and_kept(request_):
    simulate(request_)
    before = everything(request_.output)
    other = dataclasses.replace(request_, settings=dataclasses.replace(SETTINGS, seed=2))
    with pytest.raises(UsageError, match="--overwrite"):
        simulate(other)
    assert everything(request_.output) == before
    assert [item.status for item in simulate(dataclasses.replace(other, overwrite=True)).files] == ["done", "done"]


def test_foreign_file_is_not_replaced(request_):
    target = request_.output / "noisy" / "mic_0001.mrc"
    target.parent.mkdir(parents=True)
    target.write_bytes(b"precious")
    with pytest.raises(UsageError, match=r"mic_0001\.mrc"):
        simulate(request_)
    assert target.read_bytes() == b"precious"


def test_foreign_star_is_not_replaced(request_):
    request_.output.mkdir()
    star = request_.output / "micrographs.star"
    star.write_text("precious")
    with pytest.raises(UsageError, match=r"micrographs\.star"):
        simulate(request_)
    assert star.read_text() == "precious"


def test_output_below_a_file_is_a_storage_error(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(StorageError, match="mic_0001"):
        simulate(SimulateRequest(output=tmp_path / "file" / "out", count=1, settings=SETTINGS))


def test_star_written_here_is_read_by_starfile(request_):
    table = starfile.read(simulate(request_).outputs[0])
    assert list(table) == ["optics", "micrographs"]
    assert len(table["micrographs"]) == 2


@pytest.mark.parametrize("count", [0, -1, 100_001])
def test_impossible_count_is_refused(tmp_path, count):
    with pytest.raises(UsageError, match="count"):
        SimulateRequest(output=tmp_path, count=count)


def test_command_prints_json_lines_on_stdout(tmp_path):
    arguments = ["-o", str(tmp_path / "out"), "--count", "2", "--size", "64", "--pixel_size", "5", "--json"]
    outcome = CliRunner().invoke(command, [*arguments, "--defocus", "1", "1.5", "--particles", "2"])
    assert outcome.exit_code == 0, outcome.output
    records = [json.loads(line) for line in outcome.stdout.splitlines()]
    assert [record.get("status") for record in records] == ["done", "done", None]
    assert records[2]["counts_per_pixel"] == pytest.approx(1000)
    assert all(1 <= value <= 1.5 for value in records[2]["defocus_um"])


def test_a_density_map_is_read_as_mrcfile_reads_it(tmp_path):
    voxels = np.random.default_rng(0).normal(size=(5, 6, 7)).astype(np.float32)
    with mrcfile.new(tmp_path / "map.mrc") as volume:
        volume.set_data(voxels)
        volume.voxel_size = 4.2
    density = read_density(tmp_path / "map.mrc", 0.5)
    assert np.array_equal(density.voxels, voxels)
    assert density.voxel_size_angstrom == pytest.approx(4.2)
    assert (density.level, density.name) == (0.5, "map")


def test_an_image_is_no_density_map(tmp_path):
    write_mrc(tmp_path / "image.mrc", np.ones((8, 8), np.float32), pixel_size_angstrom=1.0, label="image")
    with pytest.raises(FormatError, match="not a volume"):
        read_density(tmp_path / "image.mrc")
