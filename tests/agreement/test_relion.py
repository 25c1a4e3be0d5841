"""RELION reads what cryoplug writes, and gets the same numbers; cryoplug reads what RELION writes."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import mrcfile
import numpy as np
import pytest
import tifffile

from cryoplug.cli.main import run as cryoplug
from cryoplug.formats.mrc import write_mrc
from cryoplug.formats.registry import open_micrograph
from cryoplug.formats.star import StarBlock, StarFile, image_table, read_star, write_star
from cryoplug.models.checkpoint import Checkpoint, save_checkpoint
from cryoplug.models.registry import model_spec
from cryoplug.simulation.density_map import DensityMap, particle_from_map
from cryoplug.simulation.field import Placed, projected_potential
from cryoplug.simulation.planes import FrequencyPlane
from cryoplug.simulation.specimen import random_rotation
from cryoplug.workflows.simulate.star import euler_angles

pytestmark = pytest.mark.skipif(
    not (shutil.which("relion_image_handler") and shutil.which("relion_star_handler")),
    reason="RELION is not on this machine: apt-get install relion",
)
PIXEL_SIZE = 1.25
PICKED = ("AutopickFigureOfMerit", "CoordinateX", "CoordinateY")
STAR = """
# version 30001

data_optics

loop_
_rlnOpticsGroupName #1
_rlnOpticsGroup #2
_rlnMicrographOriginalPixelSize #3
_rlnMicrographPixelSize #4
_rlnVoltage #5
_rlnSphericalAberration #6
_rlnAmplitudeContrast #7
opticsGroup1 1 1.250000 1.250000 300.000000 2.700000 0.100000


# version 30001

data_micrographs

loop_
_rlnMicrographName #1
_rlnOpticsGroup #2
_rlnCtfMaxResolution #3
MotionCorr/job002/Movies/a.mrc 1 4.900000
MotionCorr/job002/Movies/b.mrc 1 5.123450
MotionCorr/job002/Movies/c.mrc 1 3.000000

"""


def relion(program: str, *words: str) -> str:
    done = subprocess.run([program, *words], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def stats(path: Path) -> dict[str, float]:
    text = relion("relion_image_handler", "--i", str(path), "--stats")
    found = {key: float(value) for key, value in re.findall(r"(avg|stddev|minval|maxval|angpix) ?= ?([-+.e\d]+)", text)}
    sides = re.search(r"\(x,y,z,n\)= (\d+) x (\d+) x (\d+) x (\d+)", text)
    assert sides is not None, text
    return {**found, "nx": float(sides[1]), "ny": float(sides[2]), "nz": float(sides[3])}


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Make a RELION project with three micrographs, their STAR file, and a checkpoint."""
    monkeypatch.chdir(tmp_path)
    spec = model_spec("cryo_cnn")
    weights = {name: tensor.numpy() for name, tensor in spec.build(seed=1).state_dict().items()}
    save_checkpoint(Path("model/epoch_0001"), Checkpoint("cryo_cnn", weights, normalize="zscore"), 0.5)
    Path("MotionCorr/job002/Movies").mkdir(parents=True)
    for seed, name in enumerate("abc"):
        pixels = np.random.default_rng(seed).normal(50, 4, (130, 150)).astype(np.float32)
        write_mrc(Path(f"MotionCorr/job002/Movies/{name}.mrc"), pixels, pixel_size_angstrom=PIXEL_SIZE)
    Path("micrographs.star").write_text(STAR)
    return tmp_path


def denoise(*more: str) -> None:
    words = ["denoise", "micrographs.star", "--checkpoint", "model", "-o", "Denoise", "--device", "cpu", *more]
    assert cryoplug(words) == 0


def test_image_handler_finds_the_statistics_of_a_denoised_micrograph(project: Path) -> None:
    denoise()
    path = Path("Denoise/Movies/a.mrc")
    with mrcfile.open(path) as file:
        pixels = np.asarray(file.data, np.float64)
        written = (float(file.header.dmin), float(file.header.dmax), float(file.header.dmean), float(file.header.rms))
    found = stats(path)
    assert (found["nx"], found["ny"], found["nz"], found["angpix"]) == (150, 130, 1, PIXEL_SIZE)
    there = (found["minval"], found["maxval"], found["avg"], found["stddev"])
    computed = (pixels.min(), pixels.max(), pixels.mean(), pixels.std())
    # RELION prints six digits.
    assert there == pytest.approx(computed, rel=1e-5)
    assert written == pytest.approx(computed, rel=1e-5)


@pytest.mark.parametrize("kind", ["noisy", "even", "clean"])
def test_image_handler_reads_a_simulated_micrograph(tmp_path: Path, kind: str) -> None:
    words = ["simulate", "-o", str(tmp_path / "sim"), "--count", "1", "--size", "128", "--pixel-size", "2.6"]
    assert cryoplug(words) == 0
    path = tmp_path / "sim" / kind / "mic_0001.mrc"
    pixels = np.asarray(mrcfile.read(path), np.float64)
    found = stats(path)
    assert found["angpix"] == pytest.approx(2.6, rel=1e-5)
    assert (found["avg"], found["stddev"]) == pytest.approx((pixels.mean(), pixels.std()), rel=1e-5)


def test_star_handler_reads_the_star_file_of_denoise_row_for_row(project: Path) -> None:
    denoise("--star", "Denoise/micrographs.star")
    relion("relion_star_handler", "--i", "Denoise/micrographs.star", "--o", "copy.star")
    ours, theirs = read_star(Path("Denoise/micrographs.star")), read_star(Path("copy.star"))
    mine, copy = image_table(ours).block, image_table(theirs).block
    assert copy.columns == mine.columns
    for column in ("rlnMicrographName", "rlnOpticsGroup", "cryoplugMicrographNameRaw"):
        assert copy.column(column) == mine.column(column)
    assert [float(value) for value in copy.column("rlnCtfMaxResolution")] == [4.9, 5.12345, 3.0]
    optics = next(block for block in theirs.blocks if block.name == "optics")
    assert [float(value) for value in optics.column("rlnMicrographPixelSize")] == [PIXEL_SIZE]


def test_star_handler_selects_rows_of_the_star_file_of_denoise(project: Path) -> None:
    denoise("--star", "Denoise/micrographs.star")
    words = ["--select", "rlnCtfMaxResolution", "--minval", "4", "--maxval", "5"]
    relion("relion_star_handler", "--i", "Denoise/micrographs.star", "--o", "some.star", *words)
    assert image_table(read_star(Path("some.star"))).block.column("rlnMicrographName") == ["Denoise/Movies/a.mrc"]


def test_star_handler_reads_a_star_file_made_without_one(project: Path) -> None:
    words = ["denoise", "MotionCorr", "--checkpoint", "model", "-o", "Denoise", "--star", "Denoise/micrographs.star"]
    assert cryoplug([*words, "--device", "cpu", "--voltage", "300", "--cs", "2.7"]) == 0
    relion("relion_star_handler", "--i", "Denoise/micrographs.star", "--o", "copy.star")
    names = image_table(read_star(Path("copy.star"))).block.column("rlnMicrographName")
    assert names == [f"Denoise/job002/Movies/{name}.mrc" for name in "abc"]
    assert all(Path(name).is_file() for name in names)


def test_a_star_file_that_relion_wrote_gives_the_same_micrographs(project: Path) -> None:
    relion("relion_star_handler", "--i", "micrographs.star", "--o", "relion.star")
    denoise("--star", "Denoise/ours.star")
    words = ["denoise", "relion.star", "--checkpoint", "model", "-o", "Denoise2", "--star", "Denoise2/theirs.star"]
    assert cryoplug([*words, "--device", "cpu"]) == 0
    for name in "abc":
        ours, theirs = Path(f"Denoise/Movies/{name}.mrc"), Path(f"Denoise2/Movies/{name}.mrc")
        assert ours.read_bytes() == theirs.read_bytes()


def test_star_handler_reads_the_star_file_of_simulate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert cryoplug(["simulate", "-o", "sim", "--count", "2", "--size", "64"]) == 0
    relion("relion_star_handler", "--i", "sim/micrographs.star", "--o", "copy.star")
    ours, theirs = (image_table(read_star(Path(name))).block for name in ("sim/micrographs.star", "copy.star"))
    assert theirs.columns == ours.columns
    assert theirs.column("rlnMicrographName") == ours.column("rlnMicrographName")
    defocus = [[float(value) for value in table.column("rlnDefocusU")] for table in (ours, theirs)]
    assert defocus[0] == pytest.approx(defocus[1])


def test_relion_extracts_the_particles_of_a_simulated_micrograph(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Boxes are cut around the pixel that the coordinates name, and the true CTF comes with them."""
    monkeypatch.chdir(tmp_path)
    words = ["--count", "2", "--size", "512", "--particles", "12", "--astigmatism", "100", "900"]
    for output, folder in (("Simulate/job001", "Simulate/job001/"), ("simulated", "./")):
        assert cryoplug(["simulate", "-o", output, *words, "--phase-shift", "80", "90"]) == 0
        listed = image_table(read_star(Path(output) / "micrographs.star")).block
        out = f"Extract_{Path(output).name}"
        relion(
            *("relion_preprocess", "--i", f"{output}/micrographs.star", "--coord_suffix", "_truth.star"),
            *("--coord_dir", folder, "--part_dir", out, "--part_star", f"{out}/particles.star"),
            *("--extract", "--extract_size", "64"),
        )
        table = image_table(read_star(Path(out) / "particles.star")).block
        assert len(table.rows) > 12
        for name in ("DefocusU", "DefocusV", "DefocusAngle", "PhaseShift"):
            true = dict(zip(listed.column("rlnMicrographName"), listed.column(f"rln{name}"), strict=True))
            for micrograph, value in zip(table.column("rlnMicrographName"), table.column(f"rln{name}"), strict=True):
                assert float(value) == pytest.approx(float(true[micrograph]), abs=0.1)
        columns = (table.column(f"rln{name}") for name in ("MicrographName", "ImageName", "CoordinateX", "CoordinateY"))
        compared = 0
        for micrograph, image, x, y in zip(*columns, strict=True):
            number, _, stack = image.partition("@")
            row, column = int(float(y)), int(float(x))  # RELION cuts the fraction off.
            if 32 <= row < 480 and 32 <= column < 480:
                box = mrcfile.read(stack).reshape(-1, 64, 64)[int(number) - 1]
                cut = mrcfile.read(micrograph)[row - 32 : row + 32, column - 32 : column + 32]
                assert np.array_equal(box, cut)
                compared += 1
        assert compared > 6


@pytest.mark.skipif(not shutil.which("relion_project"), reason="relion_project is not on this machine")
def test_relion_projects_a_map_as_its_particles_are_turned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    z, y, x = np.indices((48, 48, 48)) - 24
    voxels = np.zeros((48, 48, 48), np.float32)
    for centre, width in zip(rng.uniform(-9, 9, (7, 3)), rng.uniform(2, 3.5, 7), strict=True):
        voxels += np.exp(-((z - centre[0]) ** 2 + (y - centre[1]) ** 2 + (x - centre[2]) ** 2) / (2 * width**2))
    model = particle_from_map(DensityMap(voxels, 3.0, threshold=0.002, name="seven"))
    # Their angles are about the centre of mass; RELION's about the middle voxel.
    inside = voxels > 0.002
    middle = np.average(np.argwhere(inside) - 24, axis=0, weights=voxels[inside])
    with mrcfile.new("seven.mrc") as volume:
        volume.set_data(np.where(inside, voxels, 0).astype(np.float32))
        volume.voxel_size = 3.0
    rotations = [random_rotation(rng) for _ in range(4)]
    optics = dict(OpticsGroupName="g", OpticsGroup="1", ImagePixelSize="3", ImageSize="48", ImageDimensionality="2")
    optics |= dict(Voltage="300", SphericalAberration="2.7", AmplitudeContrast="0.1")
    group = StarBlock("optics", True, [f"rln{name}" for name in optics], [list(optics.values())], ["# version 30001"])
    rows = [
        [f"{n}@seven.mrcs", "1", *(f"{angle:.5f}" for angle in euler_angles(rotation))]
        for n, rotation in enumerate(rotations, 1)
    ]
    columns = ["rlnImageName", "rlnOpticsGroup", "rlnAngleRot", "rlnAngleTilt", "rlnAnglePsi"]
    particles = StarBlock("particles", True, columns, rows, ["# version 30001"])
    write_star("angles.star", StarFile([group, particles], Path()))
    relion("relion_project", "--i", "seven.mrc", "--o", "seen", "--ang", "angles.star", "--angpix", "3")
    seen = mrcfile.read("seen.mrcs")
    plane = FrequencyPlane.of((48, 48), 3.0, "cpu")
    for theirs, rotation in zip(seen, rotations, strict=True):
        place = 24 + (rotation @ middle)[1:]
        placed = Placed(model, place[None], rotation[None], np.zeros(1))
        ours = projected_potential(placed, plane).numpy()
        assert np.corrcoef(theirs.ravel(), ours.ravel())[0, 1] > 0.99
        mirrored = projected_potential(Placed(model, place[None], rotation.T[None], np.zeros(1)), plane).numpy()
        assert np.corrcoef(theirs.ravel(), mirrored.ravel())[0, 1] < 0.97


def test_an_image_that_relion_wrote_has_the_pixels_that_were_meant(project: Path) -> None:
    source = Path("MotionCorr/job002/Movies/a.mrc")
    relion("relion_image_handler", "--i", str(source), "--o", "double.mrc", "--multiply_constant", "2")
    with open_micrograph(Path("double.mrc")) as micrograph:
        assert micrograph.shape == (130, 150)
        assert micrograph.pixel_size_angstrom == pytest.approx(PIXEL_SIZE)
        assert np.array_equal(micrograph.read_rows(0, 130), 2 * mrcfile.read(source))


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
@pytest.mark.parametrize("layout", [{}, {"rowsperstrip": 7}, {"compression": "lzw"}], ids=str)
def test_a_tiff_shows_what_relion_shows(tmp_path: Path, dtype: type, layout: dict[str, object]) -> None:
    """Rows in the same order, so that picks made on a denoised MRC fit the raw TIFF."""
    pixels = np.random.default_rng(3).integers(0, 200, (40, 52)).astype(dtype)
    tifffile.imwrite(tmp_path / "m.tif", pixels, photometric="minisblack", **layout)
    words = ["--i", f"1@{tmp_path}/m.tif", "--o", f"{tmp_path}/relion.mrc", "--multiply_constant", "1"]
    relion("relion_image_handler", *words)
    with open_micrograph(tmp_path / "m.tif") as ours:
        assert np.array_equal(ours.read_rows(0, 40), np.squeeze(mrcfile.read(tmp_path / "relion.mrc")))


def test_picks_on_a_denoised_tiff_fit_the_raw_tiff(project: Path) -> None:
    """RELION picks the same places on the TIFF and on what `denoise` made of it (here the raw pixels, strength 0)."""
    places = [(80, 60), (300, 70), (520, 200), (100, 300), (420, 440)]
    y, x = np.mgrid[:512, :640]
    image = np.random.default_rng(0).normal(100, 5, y.shape)
    for left, low in places:
        image -= 15 * np.exp(-((y - low) ** 2 + (x - left) ** 2) / (2 * 8**2))
    resolution = (1e8 / PIXEL_SIZE, 1e8 / PIXEL_SIZE)
    tifffile.imwrite("m.tif", image[::-1].astype(np.float32), resolution=resolution, resolutionunit="CENTIMETER")
    words = ["denoise", "m.tif", "--checkpoint", "model", "-o", "Denoise", "--strength", "0", "--device", "cpu"]
    assert cryoplug(words) == 0
    found = []
    for name in ("m.tif", "Denoise/m.mrc"):
        Path("pick.star").write_text(
            STAR[: STAR.index("# version 30001\n\ndata_micrographs")]
            + f"data_micrographs\n\nloop_\n_rlnMicrographName #1\n_rlnOpticsGroup #2\n{name} 1\n\n"
        )
        folder = f"Pick_{Path(name).suffix[1:]}/"
        sizes = ["--LoG_diam_min", "30", "--LoG_diam_max", "50", "--angpix", str(PIXEL_SIZE), "--shrink", "0"]
        relion("relion_autopick", "--i", "pick.star", "--odir", folder, "--pickname", "p", "--LoG", *sizes)
        (star,) = Path(folder).rglob("m_p.star")
        block = read_star(star).blocks[0]
        rows = zip(*(map(float, block.column(f"rln{column}")) for column in PICKED), strict=True)
        found.append([place[1:] for place in sorted(rows, reverse=True)[: len(places)]])
    assert np.allclose(sorted(found[0]), sorted(places), atol=4)
    assert np.allclose(sorted(found[1]), sorted(found[0]), atol=1.5)


def test_super_resolution_with_two_counts_in_a_byte_is_what_relion_reads(tmp_path: Path) -> None:
    packed = np.zeros((3838, 7420), np.uint8)
    packed[::7, ::5] = np.random.default_rng(1).integers(0, 256, packed[::7, ::5].shape)
    tifffile.imwrite(tmp_path / "m.tif", packed, photometric="minisblack", compression="lzw")
    words = ["--i", f"1@{tmp_path}/m.tif", "--o", f"{tmp_path}/relion.mrc", "--multiply_constant", "1"]
    relion("relion_image_handler", *words)
    with open_micrograph(tmp_path / "m.tif") as ours:
        assert ours.shape == (3838, 14840)
        assert np.array_equal(ours.read_rows(0, 3838), np.squeeze(mrcfile.read(tmp_path / "relion.mrc")))


def test_the_sections_of_a_stack_are_numbered_as_in_relion(project: Path) -> None:
    frames = np.random.default_rng(9).normal(10, 2, (4, 48, 48)).astype(np.float32)
    with mrcfile.new("stack.mrcs") as file:
        file.set_data(frames)
        file.set_image_stack()
        file.voxel_size = PIXEL_SIZE
    relion("relion_image_handler", "--i", "000003@stack.mrcs", "--o", "third.mrc", "--multiply_constant", "1")
    with open_micrograph(Path("stack.mrcs"), section=3) as ours, open_micrograph(Path("third.mrc")) as theirs:
        assert np.array_equal(ours.read_rows(0, 48), theirs.read_rows(0, 48))
        assert np.array_equal(ours.read_rows(0, 48), frames[2])
