"""The expected curve of many GPUs keeps the laws of what it is made of."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest

_SPEC = importlib.util.spec_from_file_location(
    "scaling_on_paper", Path(__file__).parents[2] / "benchmarks" / "scaling_on_paper.py"
)
assert _SPEC is not None and _SPEC.loader is not None
paper = importlib.util.module_from_spec(_SPEC)
sys.modules["scaling_on_paper"] = paper
_SPEC.loader.exec_module(paper)

MACHINE = paper.Machine(link=300e9, network=40e9, disk=20e9)
COUNTS = [1, 2, 4, 8, 16, 64]


def test_one_alone_pays_nothing() -> None:
    assert paper.average(1, 1e9, MACHINE) == 0


def test_two_send_all_of_it_once_each_way() -> None:
    """Half of the sum each, then the half of the other: as many bytes as there are, in two messages."""
    assert paper.ring(2, 300e9, 300e9, 1e-3) == pytest.approx(1 + 2e-3)


def test_a_second_host_adds_the_network() -> None:
    size = 80e6
    assert paper.average(16, size, MACHINE) - paper.average(8, size, MACHINE) == pytest.approx(size / 40e9 + 2 * 20e-6)


@pytest.mark.parametrize("training", paper.TRAININGS)
def test_more_do_more_but_less_each(training: object) -> None:
    times = [row[1] for row in paper.training_rows(training, COUNTS, MACHINE)]
    each = [value / count for value, count in zip(times, COUNTS, strict=True)]
    assert times[0] == 1 and times == sorted(times) and each == sorted(each, reverse=True)


def test_the_disk_ends_denoising() -> None:
    for denoising in paper.DENOISINGS:
        for count, rate, limited in paper.denoising_rows(denoising, COUNTS, MACHINE):
            assert rate * denoising.moved <= MACHINE.disk * (1 + 1e-12)
            assert limited == (count * denoising.rate * denoising.moved > MACHINE.disk)
