"""Patches cut in one kernel are those cut one by one: all ways to turn, odd sizes, both storage types."""

from __future__ import annotations

import os

import pytest
import torch

from cryoplug.kernels.patches import Cut, cut_in_one_kernel, cut_patches


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
@pytest.mark.parametrize(("height", "width"), [(1, 1), (64, 64), (65, 65), (70, 33)])
def test_one_kernel_gives_the_bits_of_one_patch_after_another(height: int, width: int, dtype: torch.dtype) -> None:
    pytest.importorskip("triton", reason="triton is not installed: its interpreter runs the GPU kernels in tests")
    device = torch.device("cpu") if os.environ.get("TRITON_INTERPRET") == "1" else torch.device("cuda")
    columns = width + 5
    source = torch.rand((height + 3) * columns + 7, device=device).to(dtype)
    ways = range(8) if height == width else range(0, 8, 2)
    cuts = [
        Cut(7 + (way % 3) * columns + way % 5, columns, 9 - way, bool(way & 1), bool(way & 2), bool(way & 4))
        for way in ways
    ]
    found, expected = (torch.full((10, height, width), torch.nan, device=device) for _ in range(2))
    cut_in_one_kernel(source, cuts, found)
    cut_patches(source.cpu(), cuts, host := expected.cpu())
    assert torch.equal(found.cpu().nan_to_num(-1), host.nan_to_num(-1))
    assert int(found.isnan().any(dim=(1, 2)).sum()) == 10 - len(cuts), "patches that no cut names stay as they were"


def test_a_patch_is_transposed_first_and_mirrored_then() -> None:
    source = torch.arange(12.0)
    target = torch.zeros(2, 2, 2)
    cut_patches(source, [Cut(5, 4, 1), Cut(0, 4, 0, transpose=True, flip_y=True)], target)
    assert target.tolist() == [[[1, 5], [0, 4]], [[5, 6], [9, 10]]]
