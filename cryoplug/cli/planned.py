"""What ``--dry-run`` prints, in every command that has it."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from cryoplug.cli.output import echo_result, printable_name, say
from cryoplug.cli.progress import FileProgress, file_progress

if TYPE_CHECKING:
    from cryoplug.core.plan import Plan


def echo_plan(command: str, rehearse: Callable[[FileProgress, Callable[[str], None]], Plan], *, as_json: bool) -> int:
    """Print what a run would do, and give its exit code as far as it is known.

    Parameters
    ----------
    command
        Name of the command.
    rehearse
        Makes the plan; it is called with a function that shows a file and one that prints a sentence.
    as_json
        Whether stdout is JSON lines.
    """
    with file_progress(command, as_json=as_json) as show:
        plan = rehearse(show, lambda text: say(f"{command}: {text}"))
    if plan.network is not None:
        say(f"{command}: network: {plan.network.text}")
    if plan.writes and plan.to_do:
        say(f"{command}: would write {', '.join(plan.writes)} into {printable_name(plan.output or '')}")
    echo_result(plan.record(command), as_json=as_json, type="plan", text=plan.text)
    return plan.exit_code
