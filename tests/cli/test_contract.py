"""Every command of cryoplug keeps the laws that plugins are held to."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import click
import numpy as np
import pytest

from cryoplug import extensions
from cryoplug.cli.main import cli, run
from cryoplug.formats.mrc import write_mrc
from cryoplug.models.checkpoint import Checkpoint, save_checkpoint
from cryoplug.testing import CommandContract


def micrographs(folder: Path, *names: str) -> list[Path]:
    """Write micrographs of one scene, each with noise of its own."""
    random = np.random.default_rng(0)
    scene = np.kron(random.normal(10, 2, (8, 8)), np.ones((12, 12)))
    for name in names:
        pixels = (scene + random.normal(0, 1, scene.shape)).astype(np.float32)
        write_mrc(folder / name, pixels, pixel_size_angstrom=2.0)
    return [folder / name for name in names]


def checkpoint(folder: Path) -> Path:
    from cryoplug.models.registry import CRYO_CNN

    weights = {name: tensor.numpy() for name, tensor in CRYO_CNN.build().state_dict().items()}
    save_checkpoint(folder / "model" / "epoch_0001", Checkpoint("cryo_cnn", weights, normalize="zscore"), 0.5)
    return folder / "model"


class TestConvert(CommandContract):
    command = "convert"

    def arguments(self, folder: Path) -> Sequence[object]:
        inputs = micrographs(folder, "a.mrc", "b.mrc")
        return (*inputs, "-o", folder / "store", "--patch-size", 48, "--stride", 48, "--test-split", 0)

    def missing_input(self, folder: Path) -> Sequence[object]:
        return (folder / "no_such_file.mrc", "-o", folder / "store")


class TestDenoise(CommandContract):
    command = "denoise"

    def arguments(self, folder: Path) -> Sequence[object]:
        options = ("--checkpoint", checkpoint(folder), "-o", folder / "out", "--device", "cpu", "--threads", 1)
        return (*micrographs(folder, "a.mrc"), *options)

    def missing_input(self, folder: Path) -> Sequence[object]:
        return (folder / "no_such_file.mrc", "--checkpoint", checkpoint(folder), "-o", folder / "out")


class TestMerge(CommandContract):
    command = "merge"

    def arguments(self, folder: Path) -> Sequence[object]:
        options = ("--checkpoint", checkpoint(folder), "-o", folder / "out", "--device", "cpu", "--threads", 1)
        inputs = micrographs(folder, "a.mrc")
        for shard in ("0/2", "1/2"):
            assert run([*map(str, ("denoise", *inputs, *options, "--shard", shard))]) == 0
        return (folder / "out", "--star", folder / "out.star")

    def missing_input(self, folder: Path) -> Sequence[object]:
        return (folder / "no_such_file",)


class TestEvaluate(CommandContract):
    command = "evaluate"
    pytestmark = pytest.mark.usefixtures("no_pictures")

    def arguments(self, folder: Path) -> Sequence[object]:
        even, _ = micrographs(folder, "a_EVN.mrc", "a_ODD.mrc")
        return (even, "--checkpoint", checkpoint(folder), "-o", folder / "out", "--device", "cpu", "--threads", 1)

    def missing_input(self, folder: Path) -> Sequence[object]:
        return (folder / "no_such_file_EVN.mrc", "--checkpoint", checkpoint(folder), "-o", folder / "out")


class TestInspect(CommandContract):
    command = "inspect"
    missing_input_code = 1

    def arguments(self, folder: Path) -> Sequence[object]:
        return micrographs(folder, "a.mrc")

    def missing_input(self, folder: Path) -> Sequence[object]:
        return (folder / "no_such_file.mrc",)


class TestDescribe(CommandContract):
    command = "describe"
    missing_input_code = 2  # what is asked for is a command, not a file

    def arguments(self, folder: Path) -> Sequence[object]:
        return ("denoise",)

    def missing_input(self, folder: Path) -> Sequence[object]:
        return ("no_such_file",)


class TestCite(CommandContract):
    command = "cite"

    def arguments(self, folder: Path) -> Sequence[object]:
        return ()

    def missing_input(self, folder: Path) -> None:
        return None


class TestConfig(CommandContract):
    command = "config"
    missing_input_code = 2

    def arguments(self, folder: Path) -> Sequence[object]:
        return ("denoise",)

    def missing_input(self, folder: Path) -> Sequence[object]:
        return ("no_such_file",)


class TestPluginsList(CommandContract):
    command = "plugins list"

    @pytest.fixture(autouse=True)
    def plugin(self, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
        folder = tmp_path_factory.mktemp("site")
        (folder / "toy-1.dist-info").mkdir()
        (folder / "toy-1.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: toy\nVersion: 1\n")
        (folder / "toy-1.dist-info" / "entry_points.txt").write_text("[cryoplug.models]\nnothing = no_module_toy:X\n")
        monkeypatch.syspath_prepend(folder)
        monkeypatch.delenv(extensions.OFF_VARIABLE, raising=False)
        monkeypatch.setattr(extensions, "_failures", {})

    def arguments(self, folder: Path) -> Sequence[object]:
        return ()

    def missing_input(self, folder: Path) -> None:
        return None


class TestSimulate(CommandContract):
    command = "simulate"

    def arguments(self, folder: Path) -> Sequence[object]:
        return ("-o", folder / "out", "--count", 1, "--size", 128)

    def missing_input(self, folder: Path) -> None:
        return None


class TestTrain(CommandContract):
    command = "train"
    pytestmark = pytest.mark.usefixtures("no_pictures")

    def arguments(self, folder: Path) -> Sequence[object]:
        pixels = np.random.default_rng(0).random((4, 16, 16), np.float32)
        for name in ("noisy_train.bin", "clean_train.bin"):
            pixels.tofile(folder / name)
        return (folder, "--patch-size", 16, "--epochs", 1, "--val-split", 0.25, "--device", "cpu", "--threads", 1)

    def missing_input(self, folder: Path) -> Sequence[object]:
        return (folder / "no_such_file",)


def leaves(command: click.Command, context: click.Context, words: str) -> list[str]:
    if not isinstance(command, click.Group):
        return [words]
    return [
        leaf
        for name in command.list_commands(context)
        for leaf in leaves(command.get_command(context, name), context, f"{words} {name}".strip())
    ]


def test_no_command_is_without_its_contract(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(extensions.OFF_VARIABLE, "1")
    tested = {contract.command for contract in CommandContract.__subclasses__() if contract.__module__ == __name__}
    assert tested == set(leaves(cli, click.Context(cli), ""))
