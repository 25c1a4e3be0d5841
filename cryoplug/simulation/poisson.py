"""Poisson numbers whose draws are independent, also on a GPU."""

from __future__ import annotations

import torch

NUMBERS_PER_DRAW = 256
"""Most uniform numbers that one Poisson number needs; a multiple of 4. Below an expectation of 64 it needs about as many as
the expectation, never twice 64; above, a few (curand_poisson.h of CUDA 13)."""


def draw_poisson(expected: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Draw Poisson numbers with this expectation: whole numbers from 0, in its dtype and shape.

    On a GPU, torch (seen in 2.11) advances its generator by only 20 numbers for each draw, however many the draw uses. So the
    next draw reuses some of them: the noise of two halves of 34 electrons a pixel correlated by 0.41. This function therefore
    advances the generator far enough.

    Parameters
    ----------
    expected
        Expectations, 0 or more.
    generator
        Random generator, on the device of `expected`.
    """
    numbers = torch.poisson(expected, generator=generator)
    if generator.device.type == "cuda":
        generator.set_offset(generator.get_offset() + NUMBERS_PER_DRAW)
    return numbers
