"""What many GPUs can give, on paper: from times measured on one GPU, and from what links and disks are said to do.

    python benchmarks/scaling_on_paper.py [--gpus 1,2,4,8,64] [--link 300] [--network 40] [--disk 20]

Nothing is timed here. `gpu_scaling.py` measures; this says what to expect of it, and where it must end.

Training: every process computes its step, then all of them add up their gradients, float32, one after the other. A sum over n
processes in a ring sends ``2 (n - 1) / n`` times the gradients through each link, in ``2 (n - 1)`` messages. Within a host
that is the link between GPUs. Between hosts a ring of the hosts follows, through the network, of one gradient a host.
Denoising: nothing is exchanged; every file is read and written once.
"""

from __future__ import annotations

import argparse
import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Machine:
    """What lies between the GPUs; rates in bytes a second, times in seconds."""

    link: float
    """Of a GPU to the others of its host, each way."""
    network: float
    """Of a host to the others, each way."""
    disk: float
    """Of the shared file system, reading and writing together."""
    link_message: float = 10e-6
    """What a message within a host costs beside its bytes."""
    network_message: float = 20e-6
    """What a message between hosts costs beside its bytes."""
    gpus_a_host: int = 8


@dataclass(frozen=True)
class Training:
    """A step of one GPU, as measured."""

    name: str
    step: float
    """Seconds."""
    gradients: int
    """Numbers that are added up, 4 bytes each."""
    read: int
    """Bytes of a step's patches, where they are not kept in GPU memory."""


@dataclass(frozen=True)
class Denoising:
    """Micrographs of one GPU, as measured."""

    name: str
    rate: float
    """Files a second."""
    moved: int
    """Bytes read and written a file."""


TRAININGS = (
    Training("`unet` of the recipe for halves, 32 crops of 256 x 256", 4.58e-3, 1_948_292, 32 * 2 * 256 * 256 * 4),
    Training("general model's recipe, fields made on the GPU", 1 / 80, 7_653_768, 0),
)
DENOISINGS = (
    Denoising("general model, eight orientations, 4096 x 4096 at 1.1 A/px", 84.2, 2 * 4096 * 4096 * 4),
    Denoising("`cryo_cnn`, 4096 x 4096", 98.0, 2 * 4096 * 4096 * 4),
)


def ring(count: int, size: float, rate: float, message: float) -> float:
    """Give the seconds that a sum over a ring takes (Patarasuk and Yuan, 2009).

    Parameters
    ----------
    count
        Members of the ring.
    size
        Bytes of what each holds.
    rate
        Bytes a second of each link, each way.
    message
        Seconds that a message costs beside its bytes.
    """
    return 2 * (count - 1) * message + 2 * (count - 1) / count * size / rate


def average(count: int, size: float, machine: Machine) -> float:
    """Give the seconds that averaging gradients of so many bytes over so many GPUs takes."""
    within = min(count, machine.gpus_a_host)
    hosts = math.ceil(count / machine.gpus_a_host)
    return ring(within, size, machine.link, machine.link_message) + ring(
        hosts, size, machine.network, machine.network_message
    )


def training_rows(training: Training, counts: list[int], machine: Machine) -> list[tuple[int, float, float]]:
    """Give, for each number of GPUs, how many times the patches of one it does, and the bytes a second that it reads."""
    rows = []
    for count in counts:
        step = training.step + average(count, 4 * training.gradients, machine)
        rows.append((count, count * training.step / step, count * training.read / step))
    return rows


def denoising_rows(denoising: Denoising, counts: list[int], machine: Machine) -> list[tuple[int, float, bool]]:
    """Give, for each number of GPUs, the files a second, and whether the disk is the limit."""
    most = machine.disk / denoising.moved
    return [(count, min(count * denoising.rate, most), count * denoising.rate > most) for count in counts]


def main() -> int:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--gpus", default="1,2,4,8,64", help="how many, with commas")
    parser.add_argument("--link", type=float, default=300, help="GB/s of a GPU to its host's others (default 300)")
    parser.add_argument("--network", type=float, default=40, help="GB/s of a host to the others (default 40)")
    parser.add_argument("--disk", type=float, default=20, help="GB/s of the file system (default 20)")
    arguments = parser.parse_args()
    counts = [int(word) for word in arguments.gpus.split(",")]
    machine = Machine(arguments.link * 1e9, arguments.network * 1e9, arguments.disk * 1e9)
    for training in TRAININGS:
        print(training.name)
        for count, times, read in training_rows(training, counts, machine):
            print(
                f"  {count:3d} GPUs: {times:6.2f} times the patches of one ({times / count:.0%}), {read / 1e9:.1f} GB/s read"
            )
    for denoising in DENOISINGS:
        print(denoising.name)
        for count, rate, limited in denoising_rows(denoising, counts, machine):
            print(f"  {count:3d} GPUs: {rate:7.0f} files/s{', the disk is the limit' if limited else ''}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
