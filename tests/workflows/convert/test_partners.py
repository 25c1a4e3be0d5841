"""Which two files make a pair, and pairs of halves."""

from __future__ import annotations

import numpy as np
import pytest

from cryoplug.errors import PairingError
from cryoplug.formats.mrc_claims import DENOISED_ALREADY
from cryoplug.formats.mrc_writer import write_mrc
from cryoplug.formats.registry import open_micrograph
from cryoplug.store.pairs import open_store
from cryoplug.workflows.convert import ConvertRequest, convert
from workflows.convert.made_inputs import (
    PATCH,
    folder_of,
    half,
    patches,
    request,
    write,
)


def test_halves_go_even_to_noisy_and_odd_to_clean_each_by_its_own_numbers(tmp_path):
    for i in range(2):
        write(tmp_path / "even" / f"m{i}_EVN.mrc", half(i, 0))
        write(tmp_path / "odd" / f"m{i}_ODD.mrc", 3 * half(i, 1))
    result = convert(
        request((), tmp_path / "s", pairs="halves", even=(f"{tmp_path}/even",), odd=(f"{tmp_path}/odd",), test_split=0)
    )
    assert result.exit_code == 0
    with open_store(tmp_path / "s") as store:
        assert store.manifest.normalize == "zscore"
        entries = store.manifest.micrographs
        assert [(e.name, e.clean_name) for e in entries] == [("m0_EVN.mrc", "m0_ODD.mrc"), ("m1_EVN.mrc", "m1_ODD.mrc")]
    for name, which, factor in (("noisy_train.bin", 0, 1), ("clean_train.bin", 1, 3)):
        pixels = factor * half(0, which)
        side = "normalization" if name[0] == "n" else "clean_normalization"
        numbers = getattr(entries[0], side)
        expected = (pixels[:PATCH, :PATCH] - numbers["offset"]) / numbers["scale"]
        np.testing.assert_allclose(patches(tmp_path / "s", name)[0], expected, atol=1e-5)
        assert numbers["scale"] == pytest.approx(pixels.std(), rel=0.01)


def test_clean_files_are_found_by_name_whatever_the_order(tmp_path):
    for i in range(3):
        write(tmp_path / "n" / f"m{i}.mrc", half(i, 0))
        write(tmp_path / "c" / f"clean_m{i}.mrc", half(i, 1))
    clean = tuple(str(tmp_path / "c" / f"clean_m{i}.mrc") for i in (2, 0, 1))
    convert(request(tmp_path / "n", tmp_path / "s", pairs="clean", clean=clean))
    with open_store(tmp_path / "s") as store:
        assert {(e.name, e.clean_name) for e in store.manifest.micrographs} == {
            (f"m{i}.mrc", f"clean_m{i}.mrc") for i in range(3)
        }


def test_files_without_common_names_are_not_paired(tmp_path):
    noisy = [write(tmp_path / f"{name}.mrc", half(i, 0)) for i, name in enumerate(("x", "y"))]
    clean = tuple(str(write(tmp_path / f"{name}.mrc", half(i, 1))) for i, name in enumerate(("p", "q")))
    for count in (1, 2):
        with pytest.raises(PairingError, match=f"2 noisy and {count} clean micrographs, and no names that agree"):
            convert(request(noisy, tmp_path / "t", pairs="clean", clean=clean[:count]))
    result = convert(request(noisy[:1], tmp_path / "s", pairs="clean", clean=clean[:1]))
    assert "although the names do not agree" in result.files[0].message


def test_a_missing_partner_is_listed_and_nothing_is_written(tmp_path):
    noisy = folder_of(tmp_path / "n", 3)
    clean = folder_of(tmp_path / "c", 2)
    with pytest.raises(PairingError, match=r"1 noisy: .*mic_2\.mrc"):
        convert(request(noisy, tmp_path / "s", pairs="clean", clean=(str(clean),)))
    assert not (tmp_path / "s").exists()


def test_a_file_is_never_its_own_partner(tmp_path):
    folder = folder_of(tmp_path / "n", 2)
    with pytest.raises(PairingError, match="both sides"):
        convert(request(folder, tmp_path / "s", pairs="clean", clean=(str(folder),)))


def test_partners_of_different_shape_or_pixel_size_fail_and_others_go_on(tmp_path):
    for i in range(4):
        write(tmp_path / "n" / f"mic_{i}.mrc", half(i, 0))
    write(tmp_path / "c" / "mic_0.mrc", half(0, 1))
    write(tmp_path / "c" / "mic_1.mrc", half(1, 1, (100, 200)))
    write(tmp_path / "c" / "mic_2.mrc", half(2, 1), pixel_size=3.0)
    write(tmp_path / "c" / "mic_3.mrc", half(0, 1))
    result = convert(request(tmp_path / "n", tmp_path / "s", pairs="clean", clean=(f"{tmp_path}/c",), test_split=0))
    assert [item.status for item in result.files] == ["done", "failed", "failed", "failed"]
    assert "mic_3.mrc do not belong together: correlation at low resolution" in result.files[3].message
    assert "(150, 200) but" in result.files[1].message
    assert "pixel size 1.5 angstrom but" in result.files[2].message
    assert result.exit_code == 3


def test_real_halves_become_pairs_that_share_their_signal(tmp_path, shared_data):
    folder = shared_data / "halves_apoferritin"
    result = convert(
        ConvertRequest(
            (), tmp_path, pairs="halves", even=(f"{folder}/*_EVN.mrc",), odd=(f"{folder}/*_ODD.mrc",), patch_size=512
        )
    )
    assert (result.exit_code, result.details["train"], result.details["test"]) == (0, 3 * 9, 9)
    assert result.details["stride"] == 256, "half a patch"
    with open_store(tmp_path) as store:
        noisy, clean = (np.empty((1, 512, 512), np.float32) for _ in range(2))
        for index in (0, store.count() - 1):
            store.read([index], noisy, clean)
            micrograph, y, x = store.manifest.windows["train"][index]
            entry = store.manifest.micrographs[micrograph]
            raw = []
            for name in (entry.name, entry.clean_name):
                with open_micrograph(folder / name) as source:
                    raw.append(source.read_rows(y, y + 512)[:, x : x + 512].ravel())
            shared = np.corrcoef(noisy.ravel(), clean.ravel())[0, 1]
            assert shared == pytest.approx(np.corrcoef(*raw)[0, 1], abs=1e-3)
            assert shared > 0.005


def test_a_denoised_noisy_side_is_told_and_a_denoised_clean_side_is_what_was_asked_for(tmp_path):
    label = "cryoplug 0.1.0 unet sha256:88659c7f44f4 2.6A/px"
    for name, side, text in (("raw/m", 0, "cryoplug 1"), ("denoised/m", 1, label)):
        (tmp_path / name).parent.mkdir()
        write_mrc(tmp_path / f"{name}.mrc", half(0, side), pixel_size_angstrom=1.5, label=text)
    raw, denoised = (f"{tmp_path}/{name}/m.mrc" for name in ("raw", "denoised"))

    def said(noisy, clean):
        return (
            convert(request((noisy,), tmp_path / "s", pairs="clean", clean=(clean,), overwrite=True)).files[0].message
        )

    assert DENOISED_ALREADY not in said(raw, denoised)
    assert DENOISED_ALREADY in said(denoised, raw)
