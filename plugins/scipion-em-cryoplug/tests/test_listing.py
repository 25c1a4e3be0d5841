"""The list for cryoplug names every micrograph once, and every answer finds its way back."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from scipion_here import Plugin

from cryoplug_scipion.inputs import partners
from cryoplug_scipion.listing import Exposure, Listing, Optics
from cryoplug_scipion.program import CryoplugError

OPTICS = Optics(2.6, voltage_kv=300.0)


@pytest.fixture
def listing(tmp_path: Path) -> Listing:
    return Listing(tmp_path / "list.star", tmp_path / "links")


def test_files_of_one_name_and_odd_names_are_told_apart(listing: Listing, simulated: Path, tmp_path: Path) -> None:
    odd_names = ["a b.mrc", "it's.mrc", 'say "ice".mrc', 'it\'s "ice".mrc', "_EVN.mrc", "ä.mrc"]
    files = [simulated / "noisy" / "mic_0001.mrc", simulated / "even" / "mic_0001.mrc"]
    for name in odd_names:
        files.append(tmp_path / name)
        files[-1].symlink_to(files[0])
    assert listing.add(Exposure(number, (0, str(path))) for number, path in enumerate(files, start=1))
    listing.write(OPTICS)
    run = Plugin.program().start(
        ["denoise", str(listing.path), "-o", str(tmp_path / "out"), "--no-previews", "--threads", "1"],
        lambda line: None,
    )
    records: list[dict[str, Any]] = []
    while not run.has_ended:
        records += run.records(None)
    assert run.exit_code(allowed=[0]) == 0
    assert sorted(number for record in records if (number := listing.id_of(record))) == list(range(1, len(files) + 1))
    assert len({record["output"] for record in records if "input" in record}) == len(files)


def test_adding_again_changes_nothing(listing: Listing) -> None:
    rows = [Exposure(3, (0, "/x/a.mrc")), Exposure(5, (2, "/x/stack.mrcs"))]
    assert listing.add(rows)
    assert not listing.add(rows)
    listing.write(OPTICS)
    assert '"/x/a.mrc" 1\n"000002@/x/stack.mrcs" 1\n' in listing.path.read_text()
    assert listing.id_of({"input": "000002@/x/stack.mrcs"}) == 5
    assert (listing.file_of(3), listing.file_of(5)) == (Path("/x/a.mrc"), Path("/x/stack.mrcs"))
    assert listing.id_of({"input": "/x/other.mrc"}) is None


def _set(*names: str) -> Any:
    def item(name: str) -> Any:
        return SimpleNamespace(getMicName=lambda: name, getFileName=lambda: f"{name}.mrc")

    return SimpleNamespace(items={number: item(name) for number, name in enumerate(names, start=1)})


def _names(found: dict[int, tuple[Any, ...]]) -> dict[int, list[str]]:
    return {number: [item.getMicName() for item in items] for number, items in found.items()}


def test_halves_are_found_by_name_whatever_their_order() -> None:
    found = partners(_set("a.tif", "b.tif", "c.tif"), _set("b.tif", "a.tif"), _set("c.tif", "a.tif", "b.tif"))
    assert _names(found) == {1: ["a.tif", "a.tif"], 2: ["b.tif", "b.tif"]}


def test_halves_are_found_by_names_that_differ_in_the_side() -> None:
    found = partners(_set("a.mrc", "b.mrc"), _set("b_EVN.mrc", "a_EVN.mrc"), _set("a_ODD.mrc", "b_ODD.mrc"))
    assert _names(found) == {1: ["a_EVN.mrc", "a_ODD.mrc"], 2: ["b_EVN.mrc", "b_ODD.mrc"]}


def test_two_of_one_name_are_refused() -> None:
    with pytest.raises(CryoplugError, match=r"both called a\.tif"):
        partners(_set("a.tif"), _set("a.tif", "a.tif"), _set("a.tif"))


def test_micrographs_without_pixel_size_are_refused() -> None:
    with pytest.raises(CryoplugError, match="have no pixel size"):
        Optics.of(SimpleNamespace(getSamplingRate=lambda: None))
