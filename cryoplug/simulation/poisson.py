"""Poisson numbers whose draws are independent of each other, on a GPU, too."""

from __future__ import annotations

import torch

NUMBERS_PER_DRAW = 256
"""Uniform numbers that one Poisson number may take; a multiple of 4. Below an expectation of 64 it takes about as many as
the expectation, and never twice 64; above, a few (curand_poisson.h of CUDA 13)."""


def draw_poisson(expected: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Give Poisson numbers with this expectation, whole and 0 or more, in its dtype and shape.

    On a GPU torch (seen in 2.11) moves the generator on by 20 numbers for a draw, however many it takes. The next draw then
    shares numbers with it: the noise of two halves of 34 electrons a pixel correlates by 0.41. So the generator is moved on
    here.

    Parameters
    ----------
    expected
        Expectations, 0 or more.
    generator
        Source of chance, on the device of `expected`.
    """
    numbers = torch.poisson(expected, generator=generator)
    if generator.device.type == "cuda":
        generator.set_offset(generator.get_offset() + NUMBERS_PER_DRAW)
    return numbers
