"""STAR: which table lists the images that are asked for, and at which sampling."""

from __future__ import annotations

from pathlib import Path

import pytest

from cryoplug.errors import FormatError
from cryoplug.formats.star import image_table, parse_star, read_star

HERE = Path("a.star")


def test_pixel_size_is_that_of_the_image_that_is_asked_for() -> None:
    optics = (
        "data_optics\nloop_\n_rlnOpticsGroup\n_rlnMicrographOriginalPixelSize\n_rlnMicrographPixelSize\n"
        "_rlnImagePixelSize\n1 0.5 1.0 4.0\n"
    )
    particles = "data_particles\nloop_\n_rlnImageName\n_rlnMicrographName\n_rlnOpticsGroup\n1@s.mrcs m.mrc 1\n"
    movies = "data_movies\nloop_\n_rlnMicrographMovieName\n_rlnOpticsGroup\nm.tif 1\n"
    star = parse_star(optics + particles + movies, HERE)
    assert (image_table(star).column, image_table(star).pixel_sizes) == ("rlnMicrographName", [1.0])
    assert image_table(star, "movies").pixel_sizes == [0.5]
    stack = parse_star(optics + particles.replace("_rlnMicrographName\n", "").replace(" m.mrc", ""), HERE)
    assert (image_table(stack).column, image_table(stack).pixel_sizes) == ("rlnImageName", [4.0])


def test_the_sampling_of_particles_is_not_taken_for_that_of_their_micrograph(shared_data: Path) -> None:
    # 5 micrometres at 10,000 times are the 5 angstrom of these subtomograms; their tomogram is called ..._15.00Apx.
    star = read_star(shared_data / "star" / "odd_teamtomo" / "one_loop.star")
    assert set(image_table(star).pixel_sizes) == {None}
    # In RELION 3.1 the movie's pixel size stands beside that of the particles; the micrograph may have been binned.
    star = read_star(shared_data / "star" / "relion31_spa" / "particles_1k.star")
    assert set(image_table(star).pixel_sizes) == {None}


@pytest.mark.parametrize("group", ["1", "1.000000", "01"])
def test_an_optics_group_is_a_number_however_it_is_written(group: str) -> None:
    optics = "data_optics\nloop_\n_rlnOpticsGroup\n_rlnMicrographPixelSize\n1 1.06\n2 2.0\n"
    images = f"data_micrographs\nloop_\n_rlnMicrographName\n_rlnOpticsGroup\na.mrc {group}\n"
    assert image_table(parse_star(optics + images, HERE)).pixel_sizes == [1.06]


def test_an_optics_group_that_is_not_there_is_named_and_not_replaced_by_the_header() -> None:
    optics = "data_optics\nloop_\n_rlnOpticsGroup\n_rlnMicrographPixelSize\n1 1.06\n2 2.0\n"
    images = "data_micrographs\nloop_\n_rlnMicrographName\n_rlnOpticsGroup\na.mrc 1\nb.mrc 7\n"
    with pytest.raises(FormatError, match=r"optics group 7, which data_optics does not have \(it has 1, 2\)"):
        image_table(parse_star(optics + images, HERE))


def test_two_tables_of_different_micrographs_are_refused_unless_one_has_the_usual_name() -> None:
    first = "data_session1\nloop_\n_rlnMicrographName\na.mrc\n"
    second = "data_session2\nloop_\n_rlnMicrographName\na.mrc\nb.mrc\n"
    with pytest.raises(FormatError, match="data_session1 and data_session2 list different micrographs"):
        image_table(parse_star(first + second, HERE))
    assert image_table(parse_star(first + second.replace("session2", "micrographs"), HERE)).names == ["a.mrc", "b.mrc"]
    # The same micrographs once more, such as beside coordinates: nothing would be missed.
    again = "data_picks\nloop_\n_rlnMicrographName\n_rlnCoordinateX\na.mrc 1\na.mrc 2\n"
    assert image_table(parse_star(second + again, HERE)).names == ["a.mrc", "b.mrc"]


@pytest.mark.parametrize("block", ["data_", "data_images", "data_model_class_1"])
def test_relion_30_has_one_table_of_any_name(block: str) -> None:
    text = f"{block}\nloop_\n_rlnImageName\n_rlnDetectorPixelSize\n_rlnMagnification\n3@s.mrcs 7.0 20000\n"
    table = image_table(parse_star(text, HERE))
    assert (table.names, table.pixel_sizes) == (["3@s.mrcs"], [3.5])


@pytest.mark.parametrize(
    ("name", "kind", "message"),
    [
        ("relion5_spa/movies.star", "micrographs", "it lists movies: make halves of them with convert --pairs halves"),
        ("relion5_spa/micrographs_ctf.star", "movies", "it lists micrographs: give the STAR file of the movies"),
        ("relion5_tomo_evenodd/tilt_series_ctf.star", "either", "such as CtfFind/job003/tilt_series/TS_01.star"),
        ("odd_teamtomo/postprocess.star", "either", "(blocks: data_general, data_fsc, data_guinier)"),
    ],
)
def test_a_star_of_something_else_says_what_it_has(name: str, kind: str, message: str, shared_data: Path) -> None:
    with pytest.raises(FormatError) as caught:
        image_table(read_star(shared_data / "star" / name), kind)
    assert message in str(caught.value)
    assert name in str(caught.value)
