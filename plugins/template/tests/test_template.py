"""The template plugin, as it is installed: ``pip install plugins/template[test]; pytest plugins/template``."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from cryoplug.errors import FormatError
from cryoplug.formats.registry import open_micrograph
from cryoplug.models.registry import model_spec

from cryoplug_template.command import brightness


@pytest.fixture
def image(tmp_path: Path) -> Path:
    np.save(tmp_path / "a.npy", np.arange(12, dtype=np.int16).reshape(3, 4))
    return tmp_path / "a.npy"


def test_rows_are_the_rows_of_the_array(image: Path) -> None:
    with open_micrograph(image) as source:
        assert source.shape == (3, 4)
        np.testing.assert_array_equal(source.read_rows(1, 3), np.load(image)[1:3])


def test_truncated_file_is_refused(image: Path) -> None:
    image.write_bytes(image.read_bytes()[:-1])
    with pytest.raises(FormatError, match="its header needs"):
        open_micrograph(image)


def test_command_prints_the_mean(image: Path) -> None:
    done = CliRunner().invoke(brightness, [str(image), "--json"])
    assert json.loads(done.stdout)["mean"] == 5.5


def test_network_is_a_function_of_its_seed() -> None:
    import torch

    spec = model_spec("one_conv")
    first, second = spec.build(seed=3), spec.build(seed=3)
    assert torch.equal(first.conv1.weight, second.conv1.weight)
    assert first(torch.zeros(1, 1, 5, 7)).shape == (1, 1, 5, 7)
