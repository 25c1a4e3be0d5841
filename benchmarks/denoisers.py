"""What the benchmarks judge: checkpoints, applied by the installed command, and other programs, by a line for the shell."""

from __future__ import annotations

import argparse
import datetime
import platform
import shlex
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Denoiser:
    """One way to denoise a folder of micrographs."""

    name: str
    """How its rows are called."""
    command: str
    """A line for the shell, in which ``{input}`` is a folder of MRC files and ``{output}`` the folder for the results."""
    target: str = ""
    """The output of a network that has several: image or particles."""


@dataclass(frozen=True)
class Applied:
    """What a run of a denoiser left besides its files."""

    seconds: float
    """Wall time, start of the program included."""
    talk: str
    """What it wrote on its standard error."""


def add_denoiser_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that name what is judged."""
    parser.add_argument(
        "--checkpoint",
        action="append",
        default=[],
        help="a checkpoint folder, or 'general'; may be given several times",
    )
    parser.add_argument(
        "--targets",
        nargs="*",
        default=["image", "particles"],
        help="outputs of the checkpoints; none after the option: for networks that have one output only",
    )
    parser.add_argument("--denoise-option", action="append", default=[], help="more of cryoplug denoise, as in --tta=8")
    parser.add_argument(
        "--peer",
        action="append",
        default=[],
        metavar="NAME=COMMAND",
        help="another program that denoises the files in {input} into {output}, names kept; a NAME that ends in "
        "' particles' is judged as a channel of particles alone",
    )


def chosen_denoisers(arguments: argparse.Namespace) -> list[Denoiser]:
    """Give what the options of `add_denoiser_options` name."""
    found = []
    for checkpoint in arguments.checkpoint:
        path = Path(checkpoint)
        words = [
            sys.executable,
            "-m",
            "cryoplug",
            "denoise",
            "--checkpoint",
            str(path.resolve() if path.exists() else path),
        ]
        for target in arguments.targets or [""]:
            more = [*(["--target", target] if target else []), *arguments.denoise_option]
            line = f"{shlex.join([*words, *more])} {{input}} -o {{output}}"
            found.append(Denoiser(f"{path.name} {target}".strip(), line, target))
    for text in arguments.peer:
        name, equals, command = text.partition("=")
        if not equals or "{input}" not in command or "{output}" not in command:
            raise SystemExit(f"--peer {text}: give NAME=COMMAND, with {{input}} and {{output}} in the command")
        target = name.rpartition(" ")[2]
        found.append(Denoiser(name, command, target if target in ("image", "particles") else ""))
    return found


def apply(denoiser: Denoiser, source: Path, target: Path) -> Applied:
    """Denoise a folder; end the benchmark where the command fails or leaves a micrograph out."""
    target.mkdir(parents=True, exist_ok=True)
    line = denoiser.command.format(input=shlex.quote(str(source)), output=shlex.quote(str(target)))
    begin = time.perf_counter()
    done = subprocess.run(line, shell=True, capture_output=True, text=True, check=False)
    seconds = time.perf_counter() - begin
    missing = sorted({path.name for path in source.glob("*.mrc")} - {path.name for path in target.glob("*.mrc")})
    if done.returncode or missing:
        raise SystemExit(f"{line}: exit {done.returncode}, missing {missing}\n{done.stderr[-3000:]}")
    return Applied(seconds, done.stderr)


def hardware() -> dict[str, object]:
    """Say when and on what it was measured: columns date, device, torch."""
    import torch

    on_gpu = torch.cuda.is_available()
    return {
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "device": torch.cuda.get_device_name(0) if on_gpu else f"CPU {platform.machine()}",
        "torch": torch.__version__,
    }


HARDWARE_COLUMNS = ("date", "device", "torch")
