"""The command that RELION makes of the job.star of an External job; it is the same in 3.1, 4 and 5."""

from __future__ import annotations

from pathlib import Path

from cryoplug.formats.star import read_star

_INPUTS = {
    "in_mov": "in_movies",
    "in_mic": "in_mics",
    "in_part": "in_parts",
    "in_coords": "in_coords",
    "in_3dref": "in_3dref",
    "in_mask": "in_mask",
}


def job_options(path: Path) -> dict[str, str]:
    """Read the fields of a job."""
    rows = read_star(path).block("joboptions_values").rows
    return {name: value for name, value in rows}


def external_command(options: dict[str, str], folder: str) -> str:
    """Give the line for the shell."""
    words = [options["fn_exe"], f"--o {folder}"]
    words += [f"--{flag} {options[field]}" for field, flag in _INPUTS.items() if options[field]]
    for number in range(1, 11):
        label, value = options[f"param{number}_label"], options[f"param{number}_value"]
        if label:
            words.append(f"--{label} {value}")
    return " ".join([*words, f"--j {options['nr_threads']}", options["other_args"]])
