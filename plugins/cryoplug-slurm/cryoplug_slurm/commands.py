"""``cryoplug slurm``: submit denoise and train to a cluster, follow and cancel them."""

from __future__ import annotations

import shlex
import signal
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click
from cryoplug.cli.options import CryoplugCommand, json_option
from cryoplug.cli.output import echo_result, say
from cryoplug.errors import CryoplugError, Stopped, UsageError

from cryoplug_slurm.passing import PassingCommand, configuration, understood

EXIT_FAILED_TASKS = 3
_WATCHING = ("--watch", "--poll", "--settle", "--idle-exit")
_NOT_FOR_MERGE = (
    *("--array", "-a", "--dependency", "-d", "--gres", "--gpus", "-G"),
    *("--mem-per-gpu", "--cpus-per-gpu", "--ntasks-per-gpu", "--tres-per"),
)
"""Options of sbatch that only the array gets; the job that merges needs no GPU and waits on its own."""


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
            click.option(
                "--logs",
                type=click.Path(path_type=Path),
                default=Path("slurm-logs"),
                show_default=True,
                help="Folder for the output of the jobs.",
            ),
            click.option("--print", "only_print", is_flag=True, help="Print the script, submit nothing."),
            json_option,
            click.argument("words", nargs=-1, type=click.UNPROCESSED, metavar="OPTIONS..."),
        )
    ):
        command = option(command)
    return command


def _refuse_dry_run(command: str, asked: Mapping[str, Any]) -> None:
    if asked["dry_run"]:
        raise UsageError(f"--dry-run: nothing is submitted with --print; or run cryoplug {command} --dry-run here")


@submit.command("denoise", cls=PassingCommand, without=("--shard", "--dry-run", *_WATCHING))
@click.option("--tasks", type=click.IntRange(min=1), default=4, show_default=True, help="Into how many parts.")
@_job_options
@click.pass_context
def submit_denoise(
    here: click.Context, tasks: int, words: tuple[str, ...], only_print: bool, as_json: bool, **how: Any
) -> None:
    """Denoise micrographs in an array of tasks, then merge.

    Everything else is passed to cryoplug denoise. Before anything is submitted, cryoplug looks at these options, at the
    checkpoint, and at the micrographs. Each task does its part. A job that waits for all of them writes the STAR file, the
    page and one journal. A task that is preempted or comes near its time limit goes back into the queue. The same command
    again does what is left.

    With --sbatch=--dependency=..., the micrographs may still have to be written by another job; nobody looks at them then.

    Example: cryoplug slurm submit denoise --tasks 8 --sbatch=--gres=gpu:1 mics.star -o Denoised --star Denoised/mics.star
    """
    from cryoplug_slurm import jobs, looking

    asked = understood("denoise", words, here)
    for name in ("shard", "watch"):
        if asked[name]:
            raise UsageError(f"--{name}: the tasks of the array share the micrographs; leave it out")
    _refuse_dry_run("denoise", asked)
    count, remark = (None, "") if looking.comes_later(how["sbatch"]) else looking.micrographs_of(asked)
    if remark:
        say(f"slurm: {remark}")
    script = _script("denoise", {"LAST_TASK": str(tasks - 1), "COMMAND": _command(here, "denoise", *words)}, **how)
    if only_print:
        echo_result({"script": script}, as_json=as_json, text=script)
        return
    how["logs"].mkdir(parents=True, exist_ok=True)
    array = jobs.submit(script)
    how["template"] = None
    how["sbatch"] = [option for option in how["sbatch"] if not option.startswith(_NOT_FOR_MERGE)]
    merging = {"AFTER": array, "COMMAND": _command(here, "merge", str(asked["output"]))}
    try:
        merge = jobs.submit(_script("merge", merging, **how)) if tasks > 1 else None
    except CryoplugError as error:
        say(f"slurm: job {array} denoises; when it has ended, run: cryoplug merge {shlex.quote(str(asked['output']))}")
        raise type(error)(f"the job that merges was refused: {error}") from error
    numbers = [array] if merge is None else [array, merge]
    text = f"job {array}: {tasks} tasks" + ("" if count is None else f" for {count} micrographs")
    text += "" if merge is None else f"; job {merge} merges them"
    record = {"jobs": numbers, "tasks": tasks, "micrographs": count}
    echo_result(record, as_json=as_json, text=f"{text}; cryoplug slurm follow {' '.join(numbers)}")


@submit.command("train", cls=PassingCommand, without=("--dry-run",))
@click.option("--nodes", type=click.IntRange(min=1), default=1, show_default=True, help="Machines.")
@click.option("--processes", default="gpu", show_default=True, help="On each: gpu for one a GPU, or a number.")
@_job_options
@click.pass_context
def submit_train(
    here: click.Context,
    nodes: int,
    processes: str,
    words: tuple[str, ...],
    only_print: bool,
    as_json: bool,
    **how: Any,
) -> None:
    """Train a network by one process a GPU, on one or several nodes.

    Everything else is passed to cryoplug train. Before anything is submitted, cryoplug looks at these options and at the
    store. A step takes --batch-size patches of every process. A job that is preempted or comes near its time limit saves its
    state, goes back into the queue, and on from there.

    With --sbatch=--dependency=..., the store may still have to be written by another job; nobody looks at it then.

    Example: cryoplug slurm submit train --nodes 2 --sbatch=--gres=gpu:4 dataset/ --model unet --save
    """
    from cryoplug_slurm import jobs, looking

    asked = understood("train", words, here)
    _refuse_dry_run("train", asked)
    if not asked["save"]:
        raise UsageError("a job that saves nothing cannot go on after it was stopped; give --save")
    if not looking.comes_later(how["sbatch"]):
        looking.look_at_store(asked)
    fields = {"NODES": str(nodes), "PROCESSES": shlex.quote(processes), "PYTHON": shlex.quote(sys.executable)}
    command = shlex.join(["cryoplug", *configuration(here), "train", *words])
    script = _script("train", {**fields, "COMMAND": command}, **how)
    if only_print:
        echo_result({"script": script}, as_json=as_json, text=script)
        return
    how["logs"].mkdir(parents=True, exist_ok=True)
    job = jobs.submit(script)
    echo_result({"jobs": [job]}, as_json=as_json, text=f"job {job}; cryoplug slurm follow {job}")


@slurm.command("template", cls=CryoplugCommand)
@click.argument("command", type=click.Choice(["denoise", "train"]))
@json_option
def template(command: str, as_json: bool) -> None:
    """Print the batch script that is filled in, to make it your own.

    Words like @COMMAND@ are filled in when a job is submitted; all else stays as you write it.

    Example: cryoplug slurm template denoise > denoise.sbatch
    """
    from cryoplug_slurm.scripts import template_text

    text = template_text(command)
    echo_result({"command": command, "template": text}, as_json=as_json, text=text.rstrip("\n"))


@slurm.command("follow", cls=CryoplugCommand)
@click.argument("jobs", nargs=-1, required=True, metavar="JOB...")
@json_option
def follow(jobs: tuple[str, ...], as_json: bool) -> int:
    """Wait until jobs have ended, and say what becomes of their tasks.

    Exit code 3 when a task failed, or when Slurm forgot it before its end was seen. Ctrl-C ends the waiting, not the jobs.

    Example: cryoplug slurm follow 12 13
    """
    from cryoplug_slurm import jobs as slurm_jobs

    try:
        ended = slurm_jobs.follow(jobs, lambda text: say(f"slurm: {text}"))
    except KeyboardInterrupt:
        again = f"the jobs go on; cryoplug slurm follow {' '.join(jobs)} waits again"
        raise Stopped(signal.SIGINT, again) from None
    return _became(ended, as_json=as_json)


@slurm.command("cancel", cls=CryoplugCommand)
@click.argument("jobs", nargs=-1, required=True, metavar="JOB...")
@json_option
def cancel(jobs: tuple[str, ...], as_json: bool) -> None:
    """End jobs: what waits leaves the queue, what runs finishes what it is writing.

    After a minute Slurm ends what still runs. The command that submitted them, given again, goes on from there.

    Example: cryoplug slurm cancel 12 13
    """
    from cryoplug_slurm import jobs as slurm_jobs

    _became(slurm_jobs.cancel(jobs, lambda text: say(f"slurm: {text}")), as_json=as_json)


def _became(tasks: Sequence[Any], *, as_json: bool) -> int:
    for task in tasks:
        echo_result(task, as_json=as_json, text=str(task))
    return 0 if all(task.state == "COMPLETED" for task in tasks) else EXIT_FAILED_TASKS


def _command(here: click.Context, *words: str) -> str:
    return shlex.join([sys.executable, "-m", "cryoplug", *configuration(here), *words])


def _script(name: str, fields: dict[str, str], *, template: Path | None, sbatch: Sequence[str], logs: Path) -> str:
    from cryoplug_slurm.scripts import filled, template_text

    common = {"FOLDER": shlex.quote(str(Path.cwd())), "LOGS": str(logs.absolute())}
    return filled(template_text(name, template), {**fields, **common}, sbatch)
