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
from cryoplug.formats.star import StarBlock, read_star
from cryoplug.simulation.density_map import DensityMap, particle_from_map
from cryoplug.simulation.micrograph import SimulationSettings, simulate_micrograph, true_particles
from cryoplug.simulation.molecules import molecule_library
from cryoplug.simulation.settings import SIMULATOR
from cryoplug.simulation.structures import read_structure
from cryoplug.workflows.simulate import KINDS, LISTS, SimulateRequest, read_density, simulate, workflow

SETTINGS = SimulationSettings(size_px=96, pixel_size_angstrom=5.0, seed=1)
DRAWN_BY_SIMULATOR = {
    2: {
        "shapes": (2, [998.7, 988.9, 1005.0, 1007.3, 997.8, 988.7, 1003.8, 1006.7]),
        "random": (1, [1001.0, 979.1, 1009.6, 1010.4, 1000.4, 978.8, 1009.0, 1009.5]),
        "dirt": (1, [839.4, 1901.6, 458.4, 800.6, 839.7, 1900.8, 458.5, 800.3]),
    }
}
"""Number of particles, and the mean counts of the quarters of `clean` and `noisy`, in counts per pixel."""


def everything(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


@pytest.fixture
def request_(tmp_path) -> SimulateRequest:
    return SimulateRequest(output=tmp_path / "out", count=2, settings=SETTINGS)


def test_files_hold_what_the_simulation_made(request_):
    result = simulate(request_)
    assert result.exit_code == 0
    assert len(everything(request_.output)) == 2 * (len(KINDS) + 1) + len(LISTS)
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
        assert float(value) == pytest.approx(1e4 * SETTINGS.optics_of(index).defocus_um, abs=0.01)


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


def test_a_missing_coordinate_file_is_made_again(request_):
    simulate(request_)
    before = everything(request_.output)
    (request_.output / "noisy" / "mic_0001_truth.star").unlink()
    assert [item.status for item in simulate(request_).files] == ["done", "skipped"]
    assert everything(request_.output).keys() == before.keys()
    assert everything(request_.output)["noisy/mic_0001_truth.star"] == before["noisy/mic_0001_truth.star"]


@pytest.mark.parametrize("name", ["noisy/mic_0002_truth.star", *LISTS])
def test_a_foreign_star_is_not_replaced(request_, name):
    path = request_.output / name
    path.parent.mkdir(parents=True)
    path.write_text("precious")
    with pytest.raises(UsageError, match=path.name.replace(".", r"\.")):
        simulate(request_)
    assert path.read_text() == "precious"


def test_files_of_other_settings_are_refused_and_kept(request_):
    simulate(request_)
    before = everything(request_.output)
    other = dataclasses.replace(request_, settings=dataclasses.replace(SETTINGS, seed=2))
    with pytest.raises(UsageError, match="--overwrite"):
        simulate(other)
    assert everything(request_.output) == before
    assert [item.status for item in simulate(dataclasses.replace(other, overwrite=True)).files] == ["done", "done"]


def test_files_of_another_simulator_are_refused_and_kept(request_, monkeypatch):
    simulate(request_)
    before = everything(request_.output)
    monkeypatch.setattr(workflow, "SIMULATOR", SIMULATOR + 1)
    with pytest.raises(UsageError, match=rf"this simulator \(number {SIMULATOR + 1}\).*--overwrite"):
        simulate(request_)
    assert everything(request_.output) == before


def test_the_number_of_the_simulator_stands_for_its_pixels():
    """If this fails because the simulator draws something else now, raise `SIMULATOR`, and write down what it draws."""
    drawn = {}
    for name, more in {
        "shapes": {},
        "random": {"specimen": "random", "kinds": 2, "detector": "coincidence"},
        "dirt": {"dirt": True, "seed": 5, "detector": "integrating"},
    }.items():
        made = simulate_micrograph(dataclasses.replace(SETTINGS, **more), 0)
        coarse = [getattr(made, kind).reshape(2, 48, 2, 48).mean(axis=(1, 3)).ravel() for kind in ("clean", "noisy")]
        drawn[name] = (len(made.particles), [round(float(value), 1) for value in np.concatenate(coarse)])
    expected = DRAWN_BY_SIMULATOR[SIMULATOR]
    assert drawn.keys() == expected.keys()
    for name, (particles, means) in expected.items():
        assert drawn[name][0] == particles
        assert drawn[name][1] == pytest.approx(means, abs=0.3), name


def test_foreign_file_is_not_replaced(request_):
    target = request_.output / "noisy" / "mic_0001.mrc"
    target.parent.mkdir(parents=True)
    target.write_bytes(b"precious")
    with pytest.raises(UsageError, match=r"mic_0001\.mrc"):
        simulate(request_)
    assert target.read_bytes() == b"precious"


def test_an_output_called_like_a_job_of_relion_serves_as_a_picking_job(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    request = SimulateRequest(output=Path("Simulate/job001"), count=1, settings=SETTINGS)
    simulate(request)
    suffix = Path("Simulate/job001/coords_suffix_truth.star")
    assert suffix.read_text() == "Simulate/job001/micrographs.star\n"
    assert [item.status for item in simulate(request).files] == ["skipped"]
    suffix.with_name("micrographs.star").unlink()
    suffix.with_name("coordinates.star").unlink()
    other = dataclasses.replace(request, settings=dataclasses.replace(SETTINGS, seed=7))
    for path in Path("Simulate/job001/noisy").iterdir():
        path.unlink()
    with pytest.raises(UsageError, match=r"--overwrite"):
        simulate(other)
    simulate(SimulateRequest(output=Path("job001"), count=1, settings=SETTINGS))
    assert not Path("job001/coords_suffix_truth.star").exists()


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


@pytest.mark.parametrize("axes", [(1, 2, 3), (2, 1, 3), (3, 1, 2)])
def test_the_axes_of_a_map_are_put_in_order(tmp_path, axes):
    """(x, y, z) = (1, 2, 3); the header names the axis of columns, rows and sections."""
    voxels = np.random.default_rng(0).normal(size=(5, 6, 7)).astype(np.float32)
    stored = np.ascontiguousarray(voxels.transpose([3 - axis for axis in axes[::-1]]))
    with mrcfile.new(tmp_path / "map.mrc") as volume:
        volume.set_data(stored)
        volume.voxel_size = 2.0
        volume.header.mapc, volume.header.mapr, volume.header.maps = axes
    assert np.array_equal(read_density(tmp_path / "map.mrc").voxels, voxels)


def truth(request: SimulateRequest, index: int) -> StarBlock:
    (block,) = read_star(request.output / "noisy" / f"mic_{index + 1:04d}_truth.star").blocks
    return block


def test_the_coordinates_are_those_of_the_particles(request_):
    simulate(request_)
    for index in range(2):
        table = truth(request_, index)
        particles = true_particles(SETTINGS, index)
        assert len(table.rows) == len(particles) > 0
        for name, value in (("rlnCoordinateX", "x_px"), ("rlnCoordinateY", "y_px"), ("rlnClassNumber", "number")):
            expected = [getattr(particle, value) for particle in particles]
            assert [float(text) for text in table.column(name)] == pytest.approx(expected, abs=1e-3)
        assert table.column("cryoplugParticleName") == [particle.model.name for particle in particles]


def test_a_particle_lies_where_its_coordinates_say(tmp_path):
    """A ball is darkest at its middle; seen through a lens without noise, 6 of them."""
    side = np.indices((33, 33, 33)) - 16
    ball = DensityMap(((side**2).sum(axis=0) <= 15**2).astype(np.float32), 4.0, threshold=0.5, name="ball")
    settings = SimulationSettings(
        size_px=256, pixel_size_angstrom=6.0, molecules=(particle_from_map(ball),), particles=6, seed=4
    )
    simulate(SimulateRequest(output=tmp_path, count=1, settings=settings))
    image = mrcfile.read(tmp_path / "particles_only" / "mic_0001.mrc")
    (table,) = read_star(tmp_path / "noisy" / "mic_0001_truth.star").blocks
    y, x = np.mgrid[:256, :256]
    for row, column in zip(table.column("rlnCoordinateY"), table.column("rlnCoordinateX"), strict=True):
        distance = np.hypot(y - float(row), x - float(column))
        dark = np.where(distance < 14, image.mean() - image, 0).clip(0)
        if min(float(row), float(column), 255 - float(row), 255 - float(column)) > 14:
            assert (dark * y).sum() / dark.sum() == pytest.approx(float(row), abs=0.3)
            assert (dark * x).sum() / dark.sum() == pytest.approx(float(column), abs=0.3)


@pytest.mark.parametrize("shift", [0.0, 70.0])
def test_the_thon_rings_are_where_the_star_says(tmp_path, shift):
    settings = SimulationSettings(
        size_px=512,
        pixel_size_angstrom=2.5,
        defocus_um=(1.5, 1.6),
        astigmatism_angstrom=(3000.0, 3000.0),
        phase_shift_deg=(shift, shift),
        ice_grain_rad=0.05,
        particles=0,
    )
    simulate(SimulateRequest(output=tmp_path, count=1, settings=settings))
    table = read_star(tmp_path / "micrographs.star").blocks[1]
    first, second, angle = (float(table.column(f"rlnDefocus{name}")[0]) for name in ("U", "V", "Angle"))
    plate = float(table.column("rlnPhaseShift")[0]) if shift else 0.0
    assert ("rlnPhaseShift" in table.columns) == bool(shift)
    assert first - second == pytest.approx(3000, abs=0.02)
    clean = mrcfile.read(tmp_path / "clean" / "mic_0001.mrc").astype(np.float64)
    window = np.hanning(512)
    power = np.abs(np.fft.rfft2((clean - clean.mean()) * window[:, None] * window[None, :])) ** 2
    y, x = np.fft.fftfreq(512, 2.5)[:, None], np.fft.rfftfreq(512, 2.5)[None, :]
    squared, direction = y**2 + x**2, np.arctan2(y, x)

    def darkness(u: float, v: float, axis: float) -> float:
        """Power where the transfer function of these values is near 0, relative to where it is near 1."""
        defocus = (u + v) / 2 + (u - v) / 2 * np.cos(2 * (direction - np.deg2rad(axis)))
        wavelength, cs = 0.019687, 2.7e7
        phase = np.pi * wavelength * defocus * squared - np.pi / 2 * cs * wavelength**3 * squared**2
        transfer = np.abs(np.sin(phase + np.arcsin(0.1) + np.deg2rad(plate)))
        band = (squared > 0.05**2) & (squared < 0.12**2)
        return float(power[band & (transfer < 0.1)].mean() / power[band & (transfer > 0.9)].mean())

    assert darkness(first, second, angle) < 0.1
    assert darkness(first, second, angle + 90) > 0.3
    assert darkness(second, first, angle) > 0.3


def test_random_molecules_are_named_and_the_same_for_a_seed(tmp_path):
    settings = dataclasses.replace(SETTINGS, specimen="random", kinds=3)
    simulate(SimulateRequest(output=tmp_path, count=1, settings=settings))
    (table,) = read_star(tmp_path / "noisy" / "mic_0001_truth.star").blocks
    expected = {model.name.replace(" ", "_") for model in molecule_library(SETTINGS.seed, 3)}
    assert set(table.column("cryoplugParticleName")) <= expected
    assert set(table.column("rlnClassNumber")) <= {"1", "2", "3"}


def test_maps_and_structures_are_mixed_on_one_micrograph(tmp_path):
    pytest.importorskip("gemmi")
    write_mrc(tmp_path / "ball.mrc", np.ones((5, 5), np.float32), pixel_size_angstrom=8.0)
    with mrcfile.new(tmp_path / "ball.mrc", overwrite=True) as volume:
        volume.set_data(((np.indices((9, 9, 9)) - 4) ** 2).sum(axis=0).astype(np.float32).__rsub__(30).clip(0))
        volume.voxel_size = 8.0
    lines = [
        f"ATOM  {n + 1:5d}  CA  ALA A{n + 1:4d}    {3 * (n % 10):8.3f}{3 * (n // 10 % 10):8.3f}{3 * (n // 100):8.3f}  1.00"
        " 30.00           C\n"
        for n in range(1000)
    ]
    (tmp_path / "cube.pdb").write_text("".join(lines) + "END\n")
    words = ["-o", str(tmp_path / "out"), "--count", "1", "--size", "256", "--pixel-size", "4"]
    words += ["--map", str(tmp_path / "ball.mrc"), "--model", str(tmp_path / "cube.pdb"), "--particles", "30"]
    outcome = CliRunner().invoke(command, words)
    assert outcome.exit_code == 0, outcome.output
    (table,) = read_star(tmp_path / "out" / "noisy" / "mic_0001_truth.star").blocks
    assert set(table.column("cryoplugParticleName")) == {"ball", "cube"}
    assert set(table.column("cryoplugParticleKind")) == {"map", "model"}


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--map", "a.mrc", "--map-threshold", "1", "--map-threshold", "2"], "2 for 1 maps"),
        (["--map", "a.mrc", "--specimen", "random"], "--specimen random"),
        (["--kinds", "2"], "give --specimen random"),
        (["--kinds", "2", "--specimen", "shapes"], "give --specimen random"),
        (["--kinds", "0", "--specimen", "random"], "allowed: 1 to 1000"),
        (["--model", "none.pdb"], "none.pdb"),
        (["--map", "none.mrc"], "none.mrc"),
        (["--astigmatism", "500", "100"], "lower value first"),
        (["--phase-shift", "0", "270"], "allowed: 0 to 180"),
        (["--device", "tpu"], "device 'tpu'"),
    ],
)
def test_what_contradicts_itself_or_is_not_there_is_refused(tmp_path, monkeypatch, words, told):
    monkeypatch.chdir(tmp_path)
    outcome = CliRunner().invoke(command, ["-o", "out", "--count", "1", "--size", "64", *words])
    assert outcome.exit_code != 0
    assert told in str(outcome.exception)
    assert not (tmp_path / "out").exists()


def test_a_density_map_given_as_a_structure_is_sent_to_the_other_option(tmp_path):
    pytest.importorskip("gemmi")
    write_mrc(tmp_path / "ball.map", np.ones((5, 5), np.float32), pixel_size_angstrom=8.0)
    with pytest.raises(FormatError, match="density maps by --map"):
        read_structure(tmp_path / "ball.map")


@pytest.mark.parametrize(("asked", "told"), [(2000, " of 2000 particles can be seen"), (1, ""), (0, ""), (None, "")])
def test_particles_that_found_no_place_are_counted(tmp_path, asked, told):
    settings = dataclasses.replace(SETTINGS, size_px=128, particles=asked)
    (made,) = simulate(SimulateRequest(output=tmp_path, count=1, settings=settings)).files
    assert (told in made.message) if told else not made.message
