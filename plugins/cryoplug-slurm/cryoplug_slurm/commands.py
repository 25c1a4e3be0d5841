"""``cryoplug slurm``: submit denoise and train to a cluster, follow and cancel them."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
from cryoplug.cli.main import cli
from cryoplug.cli.options import CryoplugCommand, json_option
from cryoplug.cli.output import echo_result, say
from cryoplug.errors import UsageError

EXIT_FAILED_TASKS = 3
_PASSED_ON: dict[str, Any] = {"ignore_unknown_options": True, "help_option_names": ["-h", "--help"]}


@click.group()
def slurm() -> None:
    """Run cryoplug on a Slurm cluster: submit, follow, cancel."""


@slurm.group()
def submit() -> None:
    """Submit denoise as an array of tasks, or train by torchrun over nodes."""


def _job_options(command: Any) -> Any:
    for option in reversed(
        (
            click.option(
                "--template", type=click.Path(path_type=Path), help="Your own; begin with cryoplug slurm template."
            ),
            click.option("--sbatch", multiple=True, metavar="OPTION", help="As --partition=gpu; may be repeated."),
            click.option("--logs", type=click.Path(path_type=Path), default=Path("slurm-logs"), show_default=True),
            click.option("--print", "only_print", is_flag=True, help="Print the script, submit nothing."),
            json_option,
            click.argument("words", nargs=-1, type=click.UNPROCESSED, metavar="OPTIONS..."),
        )
    ):
        command = option(command)
    return command


@submit.command("denoise", cls=CryoplugCommand, context_settings=_PASSED_ON)
@click.option("--tasks", type=click.IntRange(min=1), default=4, show_default=True, help="Into how many parts.")
@_job_options
def submit_denoise(tasks: int, words: tuple[str, ...], only_print: bool, as_json: bool, **how: Any) -> None:
    """Denoise micrographs in an array of tasks, then merge.

    Everything else is passed to cryoplug denoise, whose options are looked at before anything is submitted: see cryoplug
    denoise --help. Each task does its part; a job that waits for all of them writes the STAR file, the page and one journal.
    A task that is preempted or comes near its time limit goes back into the queue. The same command again does what is left.

    Example: cryoplug slurm submit denoise --tasks 8 --sbatch=--gres=gpu:1 mics.star -o Denoised --star Denoised/mics.star
    """
    from cryoplug_slurm import jobs

    asked = _checked("denoise", words)
    for name in ("shard", "watch"):
        if asked[name]:
            raise UsageError(f"--{name}: the tasks of the array share the micrographs; leave it out")
    command = _command(["denoise", *words])
    script = _script("denoise", {"LAST_TASK": str(tasks - 1), "COMMAND": command}, **how)
    merging = _command(["merge", str(asked["output"])])
    if only_print:
        click.echo(script)
        return
    array = jobs.submit(script)
    how["template"] = None
    how["sbatch"] = [option for option in how["sbatch"] if not option.startswith(("--gres", "--gpus", "--array"))]
    merge = jobs.submit(_script("merge", {"AFTER": array, "COMMAND": merging}, **how)) if tasks > 1 else None
    numbers = [array] if merge is None else [array, merge]
    text = f"job {array}: {tasks} tasks" + ("" if merge is None else f"; job {merge} merges them")
    echo_result({"jobs": numbers}, as_json=as_json, text=f"{text}; cryoplug slurm follow {' '.join(numbers)}")


@submit.command("train", cls=CryoplugCommand, context_settings=_PASSED_ON)
@click.option("--nodes", type=click.IntRange(min=1), default=1, show_default=True, help="Machines.")
@click.option("--processes", default="gpu", show_default=True, help="On each: gpu for one a GPU, or a number.")
@_job_options
def submit_train(
    nodes: int, processes: str, words: tuple[str, ...], only_print: bool, as_json: bool, **how: Any
) -> None:
    """Train a network by one process a GPU, on one or several nodes.

    Everything else is passed to cryoplug train, whose options are looked at before anything is submitted: see cryoplug train
    --help. A step takes --batch-size patches of every process. A job that is preempted or comes near its time limit saves its
    state, goes back into the queue, and on from there.

    Example: cryoplug slurm submit train --nodes 2 --sbatch=--gres=gpu:4 dataset/ --model unet --save
    """
    from cryoplug_slurm import jobs

    if not _checked("train", words)["save"]:
        raise UsageError("a job that saves nothing cannot go on after it was stopped; give --save")
    fields = {"NODES": str(nodes), "PROCESSES": shlex.quote(processes), "PYTHON": shlex.quote(sys.executable)}
    script = _script("train", {**fields, "COMMAND": shlex.join(["cryoplug", "train", *words])}, **how)
    if only_print:
        click.echo(script)
        return
    job = jobs.submit(script)
    echo_result({"jobs": [job]}, as_json=as_json, text=f"job {job}; cryoplug slurm follow {job}")


@slurm.command("template", cls=CryoplugCommand)
@click.argument("command", type=click.Choice(["denoise", "train"]))
def template(command: str) -> None:
    """Print the batch script that is filled in, to make it your own.

    Words like @COMMAND@ are filled in when a job is submitted; all else stays as you write it.

    Example: cryoplug slurm template denoise > denoise.sbatch
    """
    from cryoplug_slurm.scripts import template_text

    click.echo(template_text(command), nl=False)


@slurm.command("follow", cls=CryoplugCommand)
@click.argument("jobs", nargs=-1, required=True, metavar="JOB...")
@json_option
def follow(jobs: tuple[str, ...], as_json: bool) -> int:
    """Wait until jobs have ended, and say what becomes of their tasks.

    Exit code 3 when a task failed. Ctrl-C ends the waiting, not the jobs.

    Example: cryoplug slurm follow 12 13
    """
    from cryoplug_slurm import jobs as slurm_jobs

    return _became(slurm_jobs.follow(jobs, lambda text: say(f"slurm: {text}")), as_json=as_json)


@slurm.command("cancel", cls=CryoplugCommand)
@click.argument("jobs", nargs=-1, required=True, metavar="JOB...")
@json_option
def cancel(jobs: tuple[str, ...], as_json: bool) -> None:
    """End jobs: what waits leaves the queue, what runs finishes what it is writing.

    Example: cryoplug slurm cancel 12 13
    """
    from cryoplug_slurm import jobs as slurm_jobs

    _became(slurm_jobs.cancel(jobs), as_json=as_json)


def _became(tasks: Sequence[Any], *, as_json: bool) -> int:
    for task in tasks:
        echo_result(task, as_json=as_json, text=f"{task.name} {task.state} {task.exit_code}")
    return 0 if all(task.state == "COMPLETED" for task in tasks) else EXIT_FAILED_TASKS


def _checked(name: str, words: Sequence[str]) -> dict[str, Any]:
    """Let the command itself look at its options; give what it understood."""
    command = cli.get_command(click.Context(cli), name)
    assert command is not None
    with command.make_context(f"cryoplug {name}", list(words)) as context:
        return context.params


def _command(words: Sequence[str]) -> str:
    return shlex.join([sys.executable, "-m", "cryoplug", *words])


def _script(name: str, fields: dict[str, str], *, template: Path | None, sbatch: Sequence[str], logs: Path) -> str:
    from cryoplug_slurm.scripts import filled, template_text

    logs.mkdir(parents=True, exist_ok=True)
    common = {"FOLDER": shlex.quote(str(Path.cwd())), "LOGS": str(logs.absolute())}
    return filled(template_text(name, template), {**fields, **common}, sbatch)
