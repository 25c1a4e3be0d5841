"""Halves and partners are brought together by their names, or nothing is."""

from __future__ import annotations

from pathlib import Path, PurePosixPath

import pytest

from cryoplug.errors import PairingError
from cryoplug.formats.registry import open_micrograph
from cryoplug.inputs.discovery import DiscoveredMicrograph, discover
from cryoplug.inputs.pairing import PairedInput, halves_of, no_halves, pair_files


@pytest.fixture(autouse=True)
def working_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def touch(*names: str) -> None:
    for name in names:
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).touch()


def halves(*inputs: str) -> list[tuple[str, str, str]]:
    """Name, even and odd of every exposure, after both lists went through the pairing."""
    found = halves_of(discover(inputs))
    pairs = pair_files(found.even, found.odd, sides=("even", "odd"))
    assert all(pair.remark == "" for pair in pairs)
    return [(str(pair.noisy.relative), *(item.path.as_posix() for item in pair.files)) for pair in pairs]  # type: ignore[misc]


def shown(pairs: tuple[PairedInput, ...]) -> list[tuple[str, ...]]:
    return [tuple(item.path.as_posix() for item in pair.files) for pair in pairs]


def test_real_halves_in_a_folder_make_pairs(shared_data: Path) -> None:
    found = halves_of(discover([str(shared_data / "halves_apoferritin")]))
    even, odd = found.even, found.odd
    assert found.alone == ()
    assert [item.path.name for item in even] == [item.path.name.replace("_ODD", "_EVN") for item in odd]
    assert [str(item.relative) for item in even] == [
        f"May08_{number}.mrc" for number in ("030502", "031502", "043227", "043657")
    ]
    for item in (*even, *odd):
        with open_micrograph(item.path) as source:
            assert source.shape == (1024, 1024)


def test_a_micrograph_and_its_halves_in_one_folder_are_one_pair() -> None:
    touch("d/a.mrc", "d/a_EVN.mrc", "d/a_ODD.mrc", "d/b_even.mrc", "d/b_odd.mrc")
    assert halves("d") == [("a.mrc", "d/a_EVN.mrc", "d/a_ODD.mrc"), ("b.mrc", "d/b_even.mrc", "d/b_odd.mrc")]


def test_one_micrograph_is_enough_to_find_its_halves() -> None:
    touch("d/a.mrc", "d/a_EVN.mrc", "d/a_ODD.mrc")
    for named in ("d/a.mrc", "d/a_EVN.mrc", "d/a_ODD.mrc"):
        assert halves(named) == [("a.mrc", "d/a_EVN.mrc", "d/a_ODD.mrc")]


def test_other_files_of_an_exposure_are_passed_over_but_only_of_one_with_halves() -> None:
    touch("d/a.mrc", "d/a_EVN.mrc", "d/a_ODD.mrc", "d/a_PS.mrc", "d/a_noDW.mrc", "d/a_DW.mrc")
    assert halves("d") == [("a.mrc", "d/a_EVN.mrc", "d/a_ODD.mrc")]
    touch("d/b_PS.mrc")
    found = halves_of(discover(["d"]))
    assert [item.path.name for item in found.even] == ["a_EVN.mrc"]
    assert [item.path.name for item in found.alone] == ["b_PS.mrc"]
    assert str(no_halves(found.alone[0])).startswith("d/b_PS.mrc: no b_PS_EVN.mrc and no b_PS_ODD.mrc beside it. Add ")


@pytest.mark.parametrize("there", ["d/b.mrc", "d/b_EVN.mrc", "d/b_ODD.mrc", "2@d/b.mrcs"])
def test_an_exposure_without_its_halves_is_set_aside_by_name_among_others(there: str) -> None:
    touch("d/a_EVN.mrc", "d/a_ODD.mrc", there.rpartition("@")[2])
    found = halves_of(discover(["d/a*.mrc", there]))
    assert ([item.path.name for item in found.even], len(found.odd)) == (["a_EVN.mrc"], 1)
    assert [str(item.path) for item in found.alone] == [there.rpartition("@")[2]]


def test_halves_may_be_called_half1_and_half2() -> None:
    touch("d/a_half1.mrc", "d/a_half2.mrc", "d/a.mrc", "d/b_Half1.mrc", "d/b_Half2.mrc")
    assert halves("d") == [("a.mrc", "d/a_half1.mrc", "d/a_half2.mrc"), ("b.mrc", "d/b_Half1.mrc", "d/b_Half2.mrc")]


def test_halves_in_two_folders_belong_together_by_their_names() -> None:
    touch("e/a_EVN.mrc", "o/a_ODD.mrc", "e/b_EVN.mrc", "o/b_ODD.mrc")
    assert halves("e", "o") == [("a.mrc", "e/a_EVN.mrc", "o/a_ODD.mrc"), ("b.mrc", "e/b_EVN.mrc", "o/b_ODD.mrc")]


def test_halves_of_the_same_name_in_many_folders_are_not_guessed() -> None:
    touch("e1/a_EVN.mrc", "e2/a_EVN.mrc", "o1/a_ODD.mrc", "o2/a_ODD.mrc")
    with pytest.raises(PairingError, match="4 of 4 have no halves"):
        halves("e1", "e2", "o1", "o2")


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (("d/a_EVN.mrc",), r"d/a_EVN\.mrc: no a_ODD\.mrc beside it"),
        (("d/a.mrc", "d/a_ODD.mrc"), r"1 of 1 .*d/a\.mrc: no a_EVN\.mrc beside it"),
        (("d/a_ODD.mrc", "d/b.mrc"), r"2 of 2 .*d/a_ODD\.mrc: no a_EVN\.mrc beside it; d/b\.mrc: no b_EVN\.mrc"),
        (("d/a.mrc",), r"d/a\.mrc: no a_EVN\.mrc and no a_ODD\.mrc beside it"),
        (tuple(f"d/{i:02d}.mrc" for i in range(14)), r"14 of 14 .*09\.mrc: .*; and 4 more\. Add what is missing"),
    ],
)
def test_what_is_missing_is_named(names: tuple[str, ...], message: str) -> None:
    touch(*names)
    with pytest.raises(PairingError, match=message):
        halves("d")


def test_what_is_not_there_at_all_is_not_said_to_lack_halves() -> None:
    with pytest.raises(
        PairingError, match=r"1 of 1 have no halves: m/x\.mrc: there is no such file, nor halves of that"
    ):
        halves("m/x.mrc")
    touch("m/x_EVN.mrc", "m/x_ODD.mrc")
    assert halves("m/x.mrc") == [("x.mrc", "m/x_EVN.mrc", "m/x_ODD.mrc")]


def test_one_half_never_serves_two_exposures() -> None:
    touch("d/a_EVN.mrc", "d/a_even.mrc", "d/a_ODD.mrc")
    with pytest.raises(PairingError, match=r"d/a_ODD\.mrc: belongs to d/a_EVN\.mrc and to d/a_even\.mrc"):
        halves("d")


def test_halves_that_a_star_names_are_taken_whatever_they_are_called() -> None:
    Path("t.star").write_text(
        "data_TS\nloop_\n_rlnMicrographName\n_rlnMicrographNameEven\n_rlnMicrographNameOdd\n"
        "x/1.mrc h/9.mrc h/7.mrc\nx/2.mrc h/7b.mrc h/9b.mrc\n"
    )
    assert halves("t.star") == [("x/1.mrc", "h/9.mrc", "h/7.mrc"), ("x/2.mrc", "h/7b.mrc", "h/9b.mrc")]


def test_real_tilt_series_give_a_pair_for_every_tilt(shared_data: Path) -> None:
    path = shared_data / "star" / "relion5_tomo_evenodd" / "TS_01.star"
    found = halves(str(path))
    assert len(found) == 41
    assert all(even == odd.replace("_ODD.", "_EVN.") for _, even, odd in found)


def test_a_section_has_no_halves() -> None:
    with pytest.raises(PairingError, match=r"s\.mrc: is a stack, of which section 3 was named"):
        halves("3@s.mrc")


def test_a_link_to_itself_is_no_traceback() -> None:
    Path("a_EVN.mrc").symlink_to("a_EVN.mrc")
    touch("a_ODD.mrc")
    assert halves("a_ODD.mrc") == [("a.mrc", "a_EVN.mrc", "a_ODD.mrc")]


def test_two_names_of_one_file_are_no_pair() -> None:
    touch("d/a_EVN.mrc")
    Path("d/a_ODD.mrc").symlink_to("a_EVN.mrc")
    with pytest.raises(PairingError, match=r"d/a_EVN\.mrc: both sides of this pair are the same file"):
        halves("d")


def test_two_sections_of_one_stack_are_a_pair() -> None:
    touch("s.mrc")
    pairs = pair_files(discover(["1@s.mrc"]), discover(["2@s.mrc"]), sides=("even", "odd"))
    assert [(pair.noisy.section, pair.clean.section) for pair in pairs if pair.clean] == [(1, 2)]
    with pytest.raises(PairingError, match="both sides of this pair are the same file"):
        pair_files(discover(["1@s.mrc"]), discover(["1@s.mrc"]), sides=("even", "odd"))


def test_partners_are_found_without_the_words_that_say_the_side() -> None:
    touch("n/a_noisy.mrc", "n/b_noisy.mrc", "c/b_clean.mrc", "c/a_clean.mrc")
    pairs = pair_files(discover(["n"]), discover(["c"]), sides=("noisy", "clean"))
    assert shown(pairs) == [("n/a_noisy.mrc", "c/a_clean.mrc"), ("n/b_noisy.mrc", "c/b_clean.mrc")]


def test_a_missing_partner_stops_everything() -> None:
    touch("n/a.mrc", "n/b.mrc", "c/b.mrc")
    with pytest.raises(PairingError, match=r"no partner of the same name for 1 noisy: n/a\.mrc"):
        pair_files(discover(["n"]), discover(["c"]), sides=("noisy", "clean"))


@pytest.mark.parametrize("named", ["same", "other"])
def test_a_pattern_that_the_shell_took_apart_is_named(named: str) -> None:
    touch("n/a.mrc", "n/b.mrc", "c/a.mrc", "c/b.mrc", "d/b.mrc")
    spilt = ["n/a.mrc", "n/b.mrc", "c/b.mrc" if named == "same" else "d/b.mrc"]
    told = "name the folder c instead" if named == "same" else "leave them out or add the missing side"
    with pytest.raises(PairingError, match=told):
        pair_files(discover(spilt), discover(["c/a.mrc"]), sides=("input", "clean"))


def test_one_file_on_each_side_needs_no_name_and_it_is_said() -> None:
    touch("n/a.mrc", "c/x.mrc")
    (pair,) = pair_files(discover(["n"]), discover(["c/x.mrc"]), sides=("noisy", "clean"))
    assert pair.remark == "paired with c/x.mrc, the only other file, although the names do not agree"


@pytest.mark.parametrize("noisy", [["n/a.mrc"], ["n/a.mrc", "n/b.mrc"]])
def test_several_files_without_common_names_are_never_paired_by_their_order(noisy: list[str]) -> None:
    touch("n/a.mrc", "n/b.mrc", "c/x.mrc", "c/y.mrc")
    wanted = (
        rf"{len(noisy)} noisy and 2 clean micrographs, and no names that agree: n/a\.mrc, c/x\.mrc; give both sides"
    )
    with pytest.raises(PairingError, match=wanted):
        pair_files(discover(noisy), discover(["c"]), sides=("noisy", "clean"))


def test_halves_carry_the_pixel_size_and_the_row_of_their_exposure() -> None:
    halves_at = {"even": Path("a_EVN.mrc"), "odd": Path("a_ODD.mrc")}
    item = DiscoveredMicrograph(Path("a.mrc"), PurePosixPath("a.mrc"), 4, Path("m.star"), 1.5, **halves_at)
    found = halves_of([item])
    even, odd = found.even, found.odd
    assert [(half.pixel_size_angstrom, half.star_row) for half in (*even, *odd)] == [(1.5, 4), (1.5, 4)]


@pytest.mark.parametrize(
    ("whole", "even", "odd"),
    [("average", "average/even", "average/odd"), ("noisy", "even", "odd"), ("m", "m/EVN", "m/ODD")],
)
def test_halves_in_folders_of_their_own_are_found(whole: str, even: str, odd: str) -> None:
    touch(*(f"p/{folder}/X_{i}.0.mrc" for i in range(2) for folder in (whole, even, odd)))
    expected = [(f"X_{i}.0.mrc", f"p/{even}/X_{i}.0.mrc", f"p/{odd}/X_{i}.0.mrc") for i in range(2)]
    assert halves(f"p/{whole}") == expected
    assert halves(*(f"p/{whole}/X_{i}.0.mrc" for i in range(2))) == expected
    found = halves(f"p/{even}")
    assert [item[1:] for item in found] == [item[1:] for item in expected], "half of them is enough"


def test_halves_in_a_and_b_belong_together_only_where_halves_are_wanted() -> None:
    touch(*(f"p/{folder}/x{i}.mrc" for i in range(2) for folder in "AB"))
    assert [item[1:] for item in halves("p")] == [(f"p/A/x{i}.mrc", f"p/B/x{i}.mrc") for i in range(2)]
    assert [(item.even, item.odd) for item in discover(["p"])] == [(None, None)] * 4, "so may two grids be called"


def test_the_halves_of_a_dose_weighted_sum_are_those_of_its_exposure() -> None:
    touch("d/a_DW.mrc", "d/a_EVN.mrc", "d/a_ODD.mrc", "d/a_PS.mrc")
    assert halves("d") == [("a_DW.mrc", "d/a_EVN.mrc", "d/a_ODD.mrc")]


def test_a_message_names_only_what_a_command_has() -> None:
    touch("d/a.mrc")
    with pytest.raises(PairingError, match=r"Add what is missing, or name the halves with --even and --odd$"):
        halves("d")
