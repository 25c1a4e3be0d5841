"""The command ``cryoplug inspect``: what a path is and what is wrong with it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click

from cryoplug.cli.checkpoints import CheckpointPath
from cryoplug.cli.inspect_lines import ProblemTable, folder_line, line_of, problem_lines
from cryoplug.cli.options import (
    CryoplugCommand,
    json_option,
    patch_size_option,
    report_option,
)
from cryoplug.cli.output import echo_result, printable_name, say

if TYPE_CHECKING:
    from cryoplug.workflows.inspect.inspection import Inspection

_UNITS = {"angstrom": "A", "bytes": "bytes", "px": "px", "db": "dB"}
_SEVERITIES: tuple[Literal["error", "warning", "note"], ...] = ("error", "warning", "note")
_KEYED_BY_NAME = ("card", "kernels", "layers", "runs", "size_bytes", "tables")
_SHOWN_ITEMS = 12


@click.command("inspect", cls=CryoplugCommand)
@click.argument("paths", metavar="PATH...", nargs=-1, type=CheckpointPath())
@patch_size_option("Side of the patches in bare bins, in pixels. A store with a manifest knows its own.", default=1024)
@click.option(
    "--verify", is_flag=True, help="Read every patch of a store, however large, and compare it with its checksum."
)
@click.option("--quick", is_flag=True, help="Read only the headers of micrographs, stacks and movies.")
@click.option("--problems", is_flag=True, help="Print only errors and warnings, a line each.")
@click.option("--system", is_flag=True, help="Say which devices are there, which GPU kernels would run, and why.")
@report_option("Write a page for your browser: every path, and pictures and curves of stores and runs.")
@json_option
@click.pass_context
def inspect(
    context: click.Context,
    paths: tuple[Path, ...],
    patch_size: int,
    verify: bool,
    quick: bool,
    problems: bool,
    system: bool,
    report: Path | None,
    as_json: bool,
) -> None:
    """Say what each PATH is and list everything that is wrong with it.

    PATH is a micrograph, a STAR file, a store, a folder of bare bins, a checkpoint, a run folder, or a folder of these.
    general is the model that comes with cryoplug. If there is any error or warning, the exit code is 1; notes do not count.
    Nothing is changed.

    cryoplug reads every image of a stack or movie, with every strip and checksum; --quick reads only the headers. It looks
    into a folder at all depths: one line for each file, then what it passed over. At the end stands a table of all problems.

    Example: cryoplug inspect mics/*.mrc dataset/ saved_models/cryo_cnn --json

    Example: cryoplug inspect Micrographs --quick --problems
    """
    from cryoplug.workflows.inspect import InspectRequest
    from cryoplug.workflows.inspect import inspect as run

    if not paths and not system:
        raise click.UsageError("Missing argument 'PATH...'.", context)
    table, named = ProblemTable(), set(paths)

    def in_folder(item: Inspection) -> bool:
        return item.kind != "system" and item.path not in named

    def show(item: Inspection) -> None:
        table.add(item)
        if as_json:
            if item.wrong or not problems:
                echo_result(item, as_json=True, type="inspection")
        elif problems:
            for line in problem_lines(item):
                echo_result(item, as_json=False, text=line)
        else:
            echo_result(item, as_json=False, text=line_of(item) if in_folder(item) else text_of(item))

    asked = InspectRequest(
        paths, patch_size=patch_size, verify=verify, quick=quick, system=system, report=report, keep=False
    )
    result = run(asked, progress=show, folder_done=lambda folder: say(folder_line(folder)))
    if result.inspected > 1:
        if not as_json and not problems:
            for line in table.lines():
                echo_result(None, as_json=False, text=line)
        say(f"{result.inspected} inspected, {result.wrong} with errors or warnings")
    if report is not None:
        say(f"inspect: open in a browser: {printable_name(report)}")
    context.exit(result.exit_code)


def text_of(inspection: Inspection) -> str:
    """Write an inspection for people: a heading, aligned fields, then the findings, then an empty line."""
    severities = [item.severity for item in inspection.findings]
    counts = [(name, severities.count(name)) for name in _SEVERITIES]
    verdict = ", ".join(f"{count} {name}{'s' * (count > 1)}" for name, count in counts if count) or "nothing wrong"
    lines = [f"{printable_name(inspection.path)}: {inspection.kind}, {verdict}"]
    lines += _fields(inspection.summary, "  ")
    for item in sorted(inspection.findings, key=lambda item: _SEVERITIES.index(item.severity)):
        lines.append(f"  {item.severity.upper()} {printable_name(item.field)}: {printable_name(item.message)}")
    return "\n".join(lines) + "\n"


def _fields(values: dict[str, Any], indent: str, *, names: bool = False) -> list[str]:
    # Below some fields the keys are names of files, layers or tables: those stay as they are.
    labels = {key: (key, "") if names else _label(key) for key in values}
    width = max((len(labels[key][0]) for key, value in values.items() if not _is_table(key, value)), default=0)
    lines = []
    for key, value in values.items():
        label, unit = labels[key]
        if key == "evaluation" and not names and isinstance(value, dict):
            lines += [
                f"{indent}{label}",
                *(f"{indent}  {line}".rstrip() for line in _evaluation(value, values)),
            ]
            continue
        if _is_table(key, value):
            lines += [
                f"{indent}{printable_name(label)}{f' ({unit})' if unit else ''}",
                *_fields(value, indent + "  ", names=not names and key in _KEYED_BY_NAME),
            ]
            continue
        margin = "\n" + " " * (len(indent) + width + 2)
        shown = margin.join(map(printable_name, value)) if _is_text(value) else _value_text(value, unit)
        lines.append(f"{indent}{printable_name(label.ljust(width))}  {shown}".rstrip())
    return lines


def _evaluation(record: dict[str, Any], details: dict[str, Any]) -> list[str]:
    from cryoplug.reports.evaluation_record import recorded_pairs, table_of_record

    text = table_of_record(record, pairs=recorded_pairs(details))
    return (
        ["not one that this version can read"] if text is None else [printable_name(line) for line in text.splitlines()]
    )


def _is_table(key: str, value: Any) -> bool:
    # A row of numbers such as {"dmin": 0, "dmax": 1} reads better on one line.
    if not isinstance(value, dict) or not value:
        return False
    return (
        key in _KEYED_BY_NAME
        or len(value) > 4
        or any(isinstance(item, (dict, list, tuple, str)) for item in value.values())
    )


def _is_text(value: Any) -> bool:
    return isinstance(value, list) and any(isinstance(item, str) and " " in item for item in value)


def _label(key: str) -> tuple[str, str]:
    if key == "shape":
        return "shape (y, x)", ""
    head, _, tail = key.rpartition("_")
    return (head.replace("_", " "), _UNITS[tail]) if tail in _UNITS else (key.replace("_", " "), "")


def _value_text(value: Any, unit: str = "") -> str:
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        text = f"{value:.6g}"
    elif isinstance(value, dict):
        text = ", ".join(f"{key} {_value_text(item, unit)}" for key, item in value.items()) or "none"
        unit = ""
    elif isinstance(value, (list, tuple)):
        numbers = all(isinstance(item, int) for item in value)
        items = [_value_text(item) for item in value[:_SHOWN_ITEMS]]
        more = f", and {len(value) - _SHOWN_ITEMS} more" if len(value) > _SHOWN_ITEMS else ""
        text = (" x ".join(items) if numbers and len(value) > 1 else ", ".join(items) or "none") + more
    else:
        text = printable_name(value)
    return f"{text} {unit}".rstrip() if text not in ("-", "none") else text
