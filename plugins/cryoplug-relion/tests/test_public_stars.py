"""STAR files of public projects, of RELION 3.0 to 5, through a denoise job."""

from __future__ import annotations

import shutil
from pathlib import PurePosixPath

import pytest
from cryoplug.formats.star import image_table, read_star
from cryoplug.inputs.discovered import name_below_job, split_section
from relion_project import Project, make_micrograph, shared_folder

FILES = {
    "relion31_spa/corrected_micrographs.star": "4",
    "relion31_spa/micrographs_ctf.star": "3.1",
    "relion31_spa/particles_1k.star": "3.1",
    "relion5_spa/corrected_micrographs.star": "5",
    "relion5_spa/micrographs_selected.star": "5",
    "relion5_tomo_evenodd/TS_01.star": "5",
    "aspire/sample_particles_relion30.star": "3.1",
}


def below_job(name: str) -> str:
    return str(PurePosixPath(name_below_job(name)).with_suffix(""))


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(FILES))
def test_every_table_column_and_row_comes_through(project: Project, name: str) -> None:
    source = read_star(shared_folder("star") / name)
    table = image_table(source)
    section_names = [split_section(item) for item in table.names]
    assert all(section is None for section, _ in section_names)
    for number, (_, path) in enumerate(dict.fromkeys(section_names)):
        make_micrograph(project / path, seed=number, side=64)
    star = "Select/job009/input.star"
    (project / star).parent.mkdir(parents=True)
    shutil.copy(shared_folder("star") / name, project / star)
    job = project.job("External/job010/", release=FILES[name])

    done = project.denoise(job, star)
    assert done.returncode == 0, done.stderr
    assert project.ends(job) == ["RELION_JOB_EXIT_SUCCESS"]
    made = read_star(project / job / "micrographs_denoised.star")
    assert [block.name for block in made.blocks] == [block.name for block in source.blocks]
    for old, new in zip(source.blocks, made.blocks, strict=True):
        assert new.preamble == old.preamble
        if old is not table.block:
            assert (new.columns, new.rows) == (old.columns, old.rows)
            continue
        assert new.columns == [*old.columns, "cryoplugMicrographNameRaw"]
        for column in old.columns:
            if column != "rlnMicrographName":
                assert new.column(column) == old.column(column)
        assert new.column("cryoplugMicrographNameRaw") == table.names
        # RELION pairs coordinates with micrographs by what follows X/jobNNN/, but for the ending.
        assert list(map(below_job, new.column("rlnMicrographName"))) == list(map(below_job, table.names))
        assert all((project / item).is_file() for item in new.column("rlnMicrographName"))
