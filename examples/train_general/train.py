"""Train the general model on simulated fields: two outputs, the image with its ice and the particles alone.

    python examples/train_general/train.py --state state --steps 60000 --minutes 9.5 [--structures structures.npz]

The same command goes on where the last one stopped, until the steps are done; then ``state/general`` is the checkpoint. Fields
are made on the GPU while the network learns, and never stored: see pool.py. ``--network start`` trains the small network that
``train --init general`` begins with; its checkpoint is ``state/start``. On two GPUs, each with a pool of its own:

    torchrun --standalone --nproc-per-node 2 examples/train_general/train.py --state state --steps 60000 --pools 2
 README.md beside this has the whole recipe.
"""

from __future__ import annotations

import argparse
import copy
import math
import os
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from dormant import wake
from evenly import BOUND, EvenLoss, unlikeness
from export import export_checkpoint
from library import invented, load
from pool import FieldPool, robust_units
from rates import parts_of_the_rate
from safetensors.torch import load_file

from cryoplug.models.registry import model_spec
from cryoplug.models.unet_geometry import OUTPUTS
from cryoplug.simulation.dirt import DirtPopulation, random_dirt
from cryoplug.simulation.field import expose
from cryoplug.simulation.population import Population
from cryoplug.simulation.specimen import ParticleModel
from cryoplug.training.distributed import Processes, open_processes

NETWORKS = {
    "general": {"depth": 4, "width": 40, "most": 320, "stem": 2, "skip": "none", "outputs": 2, "clip": 8.0},
    "start": {"depth": 3, "width": 32, "stem": 2, "skip": "none", "outputs": 1, "clip": 8.0},
}
"""What ``denoise`` uses, and the smaller network that ``train --init general`` begins with: it gives the image alone."""
POPULATION = Population(phase_plate=0.14, scrambled_dose_e_per_angstrom2=20.0)
DIRT = DirtPopulation(clean=0.5, frost=0.36, speckled=0.7)
"""Fields. More of them than by default have what version 4 was weak at: phase plates, frost, carbon of strong grain."""
FAINT_DIRT = DirtPopulation(clean=0.6, frost=0.0)
"""Dirt of a field with less than `POPULATION.scrambled_dose_e_per_angstrom2`. Nobody can tell frost, or a film's strong grain,
from particles there. A network that has met them there learns to erase particles that it is not sure of."""
STRONG_FROST_PART = 0.06
STRONG_FROST = DirtPopulation(
    clean=0,
    carbon=0,
    gold=0,
    crystals=0,
    spots=0,
    crack=0,
    frost=1,
    frost_rms=(0.05, 0.6),
    frost_slope=(1.5, 4.5),
    frost_longest_angstrom=(300.0, 4000.0),
)
"""Strong frost and nothing else, as if a micrograph were full of ice balls; the part is that of fields that are not faint."""
ASKED_EVERY = 20
"""Steps between two looks at the clock."""
PACED_STEPS, SAFE_PART = 1000, 0.97
"""With ``--finish-minutes`` the pace at this step plans the rest; it may become a little slower."""
BLOCKS_PX = (64, 512)
"""What varies more slowly does not count in the second loss: in the image, and in the particles."""
COUNTED_EVERY, COUNTED_IN = 5000, 32
"""Steps between two counts of dormant channels, and in how many fields; dormant.py says what they are."""
FLOOR = 3e-5
"""Added to each crop's squared error before its logarithm is shown: below it nobody sees a difference."""


@dataclass(frozen=True)
class Plan:
    """What a run does; a stopped run goes on with the same plan, though `steps` and `cool_down` may change while it is warm."""

    steps: int
    cool_down: int = 25_000
    """Steps at the end in which the rate falls from `rate` to almost nothing, as a cosine does."""
    batch: int = 10
    """Crops a step of each pool."""
    pools: int = 1
    """Pools of fields, shared out over the processes: two processes with a pool each learn what one learns with two pools."""
    side_px: int = 512
    field_px: int = 1024
    fields: int = 256
    steps_a_field: int = 1
    rate: float = 1e-3
    by_fan_in: float = 0.0
    """Power by which wide layers learn more slowly: 0, all have the same rate; 1, `rate` over their fan-in. See rates.py."""
    warm_up: int = 1000
    weight_decay: float = 0.01
    average: float = 0.9995
    molecules: int = 2000
    seed: int = 1
    bound: float = BOUND
    """Of the loss: see evenly.py."""
    likeness: float = 1.0
    """Weight of the second loss, the correlation with the truth."""
    init: str = ""
    """Checkpoint folder to begin from; empty: fresh weights."""
    wake: int = 0
    """Fields in which to look for dormant channels before the first step, to wake them; 0: leave them so."""
    network: str = "general"
    """One of `NETWORKS`."""


def main() -> None:
    """Train until the steps or the minutes are over; save."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--state", type=Path, required=True, help="folder that keeps the run and gets the checkpoint")
    parser.add_argument("--minutes", type=float, default=1e9, help="stop after so long and save (default: never)")
    parser.add_argument(
        "--finish-minutes", type=float, help="plan the steps by the pace of the first ones, to be done after so long"
    )
    parser.add_argument("--structures", type=Path, help="particles of real structures, from structures.py")
    for name, value in vars(Plan(steps=60_000)).items():
        choices = tuple(NETWORKS) if name == "network" else None
        parser.add_argument(f"--{name.replace('_', '-')}", type=type(value), default=value, choices=choices)
    arguments = parser.parse_args()
    plan = Plan(**{name: getattr(arguments, name) for name in vars(Plan(steps=1))})
    with open_processes("auto") as (processes, device):
        if plan.pools % processes.world:
            parser.error(f"--pools {plan.pools} for {processes.world} processes; give {processes.world}, or a multiple")
        began = time.monotonic()
        finish_at = None if arguments.finish_minutes is None else began + 60 * arguments.finish_minutes
        stop_at = began + 60 * arguments.minutes
        train(plan, arguments.state, arguments.structures, processes, device, stop_at=stop_at, finish_at=finish_at)


def train(
    plan: Plan,
    state: Path,
    structures: Path | None,
    processes: Processes,
    device: torch.device,
    *,
    stop_at: float,
    finish_at: float | None = None,
) -> None:
    """Train; the loop."""
    state.mkdir(parents=True, exist_ok=True)
    torch.backends.cudnn.benchmark = True
    run = Run(plan, device, processes)
    begin = run.load(state)
    models = particles(plan, structures)
    say(f"{len(models)} particles; {run.weights:,} weights; step {begin} of {plan.steps}")

    def make(number: int) -> torch.Tensor:
        field, placed = POPULATION.draw(models, size_px=plan.field_px, seed=plan.seed, number=number)
        generator = torch.Generator(device).manual_seed(hash((plan.seed, number)) % 2**62)
        rng = np.random.default_rng([plan.seed, 5, number])
        size, voltage = (plan.field_px, plan.field_px), field.optics.voltage_kv
        population = FAINT_DIRT
        if field.dose_e_per_angstrom2 >= POPULATION.scrambled_dose_e_per_angstrom2:
            population = DIRT
            if rng.random() < STRONG_FROST_PART:
                population, placed = STRONG_FROST, []
        dirt = random_dirt(size, field.pixel_size_angstrom, rng, generator, population=population, voltage_kv=voltage)
        made = expose(field, placed, generator, dirt=dirt)
        return robust_units(made.record(generator), made.image, made.particles)

    if plan.wake and not begin:
        say(f"{run.wake(plan.wake, make)} channels were dormant and begin anew")
    first = begin // plan.steps_a_field
    pools = {
        number: FieldPool(
            lambda field, number=number: make(field * plan.pools + number),  # type: ignore[misc]
            fields=plan.fields,
            size_px=plan.field_px,
            first=first,
            device=device,
        )
        for number in range(processes.launch.rank, plan.pools, processes.world)
    }
    say("the pool is full")
    losses, told, step = [], time.monotonic(), begin
    while step < run.plan.steps:
        # Not each time: to ask is to wait for the slowest of the hosts, while GPUs have steps in their queues.
        if step % ASKED_EVERY == 0 and any(processes.largest([time.monotonic() >= stop_at])):
            break
        crops = []
        for number, pool in pools.items():
            if step % plan.steps_a_field == 0:
                pool.renew()
            rng = np.random.default_rng([plan.seed, 4, step] + [number] * (number > 0))
            crops.append(pool.crops(plan.batch, plan.side_px, rng))
        losses.append(run.step(torch.cat(crops), step))
        step += 1
        paced = step == begin + PACED_STEPS
        if step % COUNTED_EVERY == 0 and processes.first:
            say(f"{run.dormant(COUNTED_IN, make)} channels are dormant")
        if step % 500 == 0 or step == run.plan.steps or paced:
            means = zip(OUTPUTS, torch.stack(losses).mean(0).tolist(), strict=False)
            pace = len(losses) / (time.monotonic() - told)
            say(f"step {step}: {', '.join(f'{name} {mean:+.3f} dB' for name, mean in means)}, {pace:.1f} steps/s")
            losses, told = [], time.monotonic()
            if finish_at is not None and paced:
                left = max(0.0, *processes.largest([finish_at - told])) * SAFE_PART
                run.plan = planned(plan, step + int(left / max(processes.largest([1 / pace]))))
                say(f"{run.plan.steps} steps, {run.plan.cool_down} of them to cool down")
    if processes.first and step:
        run.save(state, step)
    for pool in pools.values():
        pool.close()
    if processes.first:
        export_checkpoint(state / plan.network, run.averaged(), NETWORKS[plan.network], run.plan, step)


def planned(plan: Plan, steps: int) -> Plan:
    """Give the same plan for other steps, of which as large a part cools down."""
    return replace(plan, steps=steps, cool_down=round(steps * plan.cool_down / plan.steps))


class Run:
    """The network, its optimizer and its moving average, with a whole step recorded as one graph on a GPU."""

    def __init__(self, plan: Plan, device: torch.device, processes: Processes) -> None:
        self.plan, self.device, self.processes = plan, device, processes
        self.module = model_spec("unet").build(seed=plan.seed, config=NETWORKS[plan.network])
        if plan.init:
            self.module.load_state_dict(load_file(Path(plan.init) / "model.safetensors"))
        self.module.to(device=device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.parameters = list(self.module.parameters())
        self.weights = sum(parameter.numel() for parameter in self.parameters)
        self.average = [parameter.detach().clone() for parameter in self.parameters]
        on_gpu = device.type == "cuda"
        parts = parts_of_the_rate(self.module, power=plan.by_fan_in)
        self.rates = {part: torch.zeros((), device=device) for part in parts}
        # Weights decay at one pace, though their rates differ.
        groups = [
            {"params": parts[part], "lr": rate, "weight_decay": plan.weight_decay / part}
            for part, rate in self.rates.items()
        ]
        self.optimizer = torch.optim.AdamW(groups, fused=on_gpu, capturable=on_gpu)
        side = plan.side_px
        count = plan.batch * plan.pools // processes.world
        self.batch = torch.zeros((count, 3, side, side), dtype=torch.float16, device=device)
        self.keep = torch.zeros((), device=device)
        self.graph: torch.cuda.CUDAGraph | None = None
        self.clip, outputs = self.module.clip, self.module.outputs
        self.losses = torch.zeros(outputs, device=device)
        self.loss = EvenLoss(outputs, device, bound=plan.bound)
        if on_gpu:
            self._record()

    def step(self, crops: torch.Tensor, number: int) -> torch.Tensor:
        """Learn from crops; give the mean of their errors in dB, of each output."""
        plan = self.plan
        warm = min(1.0, (number + 1) / plan.warm_up)
        cooled = min(1.0, max(0.0, 1 - (plan.steps - number) / max(plan.cool_down, 1)))
        now = plan.rate * warm * (0.005 + 0.995 * (1 + math.cos(math.pi * cooled)) / 2)
        for part, rate in self.rates.items():
            rate.fill_(part * now)
        # The average begins as the network itself.
        self.keep.fill_(min(plan.average, (number + 1) / (number + 10)))
        self.batch.copy_(crops)
        if self.graph is not None:
            self.graph.replay()
        else:
            self._learn()
        return self.losses.clone()

    def _learn(self) -> None:
        noisy, image, alone = self.batch.float().split(1, dim=1)
        with torch.autocast(self.device.type, dtype=torch.bfloat16, cache_enabled=False):
            output = self.module(noisy).float()
        clip = self.clip
        # What is cut off is added back after the network, which therefore learns the image within the limits.
        beyond = noisy - noisy.clamp(-clip, clip)
        output = torch.cat((output[:, :1] - beyond, output[:, 1:]), dim=1)
        truths = torch.cat((image.clamp(-clip, clip), alone), dim=1)[:, : output.shape[1]]
        errors = output - truths
        before = self.loss.usual.clone()
        loss = self.loss(output.detach(), errors)
        if self.plan.likeness:
            for number, block in enumerate(BLOCKS_PX[: output.shape[1]]):
                seen, there = output[:, number], truths[:, number]
                unlike = unlikeness(seen, there, block_px=min(block, self.plan.side_px), average=self._over_processes)
                loss = loss + self.plan.likeness * unlike
        gradients = torch.autograd.grad(loss, self.parameters)
        shown = (errors.detach().square().mean((2, 3)) + FLOOR).log10().mean(0) * 10
        # What one process learnt of usual errors is a part of what the whole batch teaches.
        learnt = (self.loss.usual - before) * self.processes.world
        self.processes.average(loss, [*gradients, shown, learnt], 1 / self.processes.world)
        self.loss.usual.copy_(before + learnt)
        for parameter, gradient in zip(self.parameters, gradients, strict=True):
            parameter.grad = gradient
        self.optimizer.step()
        torch._foreach_mul_(self.average, self.keep)
        torch._foreach_add_(self.average, torch._foreach_mul([p.detach() for p in self.parameters], 1 - self.keep))
        self.losses.copy_(shown)

    def _over_processes(self, number: torch.Tensor) -> torch.Tensor:
        """Average a number over all processes."""
        mean = number.detach().clone()
        self.processes.average(mean, [mean], 1 / self.processes.world)
        return mean

    def _record(self) -> None:
        """Record a step; those that warm up have a rate of 0 and leave no trace."""
        self.keep.fill_(1)
        usual = self.loss.usual.clone()
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(3):
                self._learn()
        torch.cuda.current_stream().wait_stream(stream)
        self.graph = torch.cuda.CUDAGraph()
        # The pools' threads, and those that watch over other processes, go on meanwhile.
        with torch.cuda.graph(self.graph, capture_error_mode="thread_local"):
            self._learn()
        self.loss.usual.copy_(usual)
        for moments in self.optimizer.state.values():
            for value in moments.values():
                value.zero_()

    def wake(self, count: int, make: Callable[[int], torch.Tensor]) -> int:
        """Wake the channels that are dormant in the middle of all of these fields; give their number."""
        woken = wake(self.module, self._noisy(count, make), seed=self.plan.seed)
        with torch.no_grad():
            torch._foreach_copy_(self.average, self.parameters)
        return woken

    def dormant(self, count: int, make: Callable[[int], torch.Tensor]) -> int:
        """Count the channels of the averaged network that are dormant in these fields."""
        network = copy.deepcopy(self.module)
        network.load_state_dict(self.averaged())
        return wake(network, self._noisy(count, make), seed=0)

    def _noisy(self, count: int, make: Callable[[int], torch.Tensor]) -> torch.Tensor:
        side = self.plan.side_px
        with torch.no_grad():
            return torch.stack([make(number)[:1, :side, :side].float() for number in range(count)])

    def averaged(self) -> dict[str, torch.Tensor]:
        """Give the averaged weights by name."""
        names = (name for name, _ in self.module.named_parameters())
        return {name: value.detach().cpu() for name, value in zip(names, self.average, strict=True)}

    def save(self, state: Path, step: int) -> None:
        """Keep what going on needs."""
        tensors = {"parameters": self.parameters, "average": self.average}
        kept = {name: [value.detach().cpu() for value in values] for name, values in tensors.items()}
        moments = [self.optimizer.state[parameter] for parameter in self.parameters]
        kept |= {key: [moment[key].cpu() for moment in moments] for key in ("exp_avg", "exp_avg_sq", "step")}
        partial = state / "state.partial"
        torch.save({"done": step, "plan": vars(self.plan), "usual": self.loss.usual.cpu(), **kept}, partial)
        partial.replace(state / "state.pt")

    def load(self, state: Path) -> int:
        """Take up a run; give its step, 0 for a new one."""
        path = state / "state.pt"
        if not path.exists():
            return 0
        kept = torch.load(path, map_location=self.device, weights_only=True)
        plans = ({"pools": 1, "by_fan_in": 0.0, "wake": 0, **kept["plan"]}, vars(self.plan))
        before, now = ({**plan, "steps": 0, "cool_down": 0} for plan in plans)
        if before != now:
            raise SystemExit(f"{path}: another plan, {kept['plan']}; give another --state")
        with torch.no_grad():
            for here, there in zip((self.parameters, self.average), (kept["parameters"], kept["average"]), strict=True):
                for to, value in zip(here, there, strict=True):
                    to.copy_(value)
        if not self.optimizer.state:
            self._learn()  # makes the moments, at a rate of 0
        self.loss.usual.copy_(kept["usual"])
        for number, parameter in enumerate(self.parameters):
            for key, value in self.optimizer.state[parameter].items():
                value.copy_(kept[key][number])
        return int(kept["done"])


def particles(plan: Plan, structures: Path | None) -> list[ParticleModel]:
    """Make the invented particles; real ones make up a quarter where there are any."""
    made = invented(plan.molecules, seed=plan.seed)
    real = [] if structures is None else load(structures)
    return made + real * (len(made) // (3 * len(real)) if real else 0)


def say(text: str) -> None:
    """Print at once, with the time; of several processes the first one speaks."""
    if os.environ.get("RANK", "0") == "0":
        print(time.strftime("%H:%M:%S"), text, flush=True)


if __name__ == "__main__":
    main()
