"""The job ``cryoplug.denoise.micrographs``: denoise the micrographs of a STAR file, and write a STAR file of the results."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from cryoplug.formats.star import image_table, read_star
from cryoplug.outputs.journal import JOURNAL_NAME, last_lines
from cryoplug.outputs.previews import preview_name
from cryoplug.workflows.denoise import DenoiseRequest
from cryoplug_relion.commands import denoise
from cryoplug_relion.denoising import STAR_NAME
from pipeliner.job_options import JobOptionCondition, JobOptionValidationResult
from pipeliner.nodes import NODE_LOGFILE, NODE_MICROGRAPHGROUPMETADATA
from pipeliner.results_display_objects import ResultsDisplayObject

from cryoplug_pipeliner import displays
from cryoplug_pipeliner.job import (
    LOGFILE,
    CryoplugJob,
    Metadata,
    checkpoint_words,
    fields_of,
    micrographs_field,
    trained_model_field,
    two_checkpoints,
)

_COMMON = ("model", "checkpoint_sha256", "normalize", "target", "strength", "highpass", "lowpass", "merge_highres")
"""Fields of the journal that all micrographs of a job share; the metadata has them once."""


class Denoise(CryoplugJob):
    """Denoise micrographs for looking and picking."""

    PROCESS_NAME = "cryoplug.denoise.micrographs"
    OUT_DIR = "CryoplugDenoise"
    command = denoise
    called = "relion denoise"
    groups = {
        "Main": ("checkpoint", "target", "halves"),
        "Pixel size": ("pixel-size", "angpix", "output-angpix"),
        "Result": ("strength", "highpass", "lowpass", "merge-highres", "float16", "previews"),
        "Compute options": ("gpu", "device", "precision", "tta", "tile", "max-memory"),
        "Advanced options": ("normalize", "overwrite"),
    }
    changed_in_continue = CryoplugJob.changed_in_continue | {"overwrite"}

    def __init__(self) -> None:
        super().__init__()
        self.jobinfo.display_name = "Denoise micrographs"
        self.joboptions["checkpoint"].deactivate_if = JobOptionCondition([("trained_model", "!=", "")])

    def add_inputs(self) -> None:
        """Add the micrographs and the network."""
        self.joboptions["in_mics"] = micrographs_field(
            help_text="Micrographs of MotionCorr or CtfFind. The STAR file may grow: continue the job for the new ones."
        )
        self.joboptions["trained_model"] = trained_model_field()

    def input_words(self) -> list[str]:
        """Give the inputs as RELION writes them."""
        star = self.joboptions["in_mics"].value
        return ["--o", self.output_dir, "--in_mics", star, *checkpoint_words(self.joboptions)]

    def check(self, parsed: dict[str, Any]) -> None:
        """Check the options as the command does."""
        star, folder = str(parsed["in_mics"]), parsed["folder"]
        DenoiseRequest(inputs=(star,), output=folder, star=folder / STAR_NAME, **fields_of(DenoiseRequest, parsed))

    def additional_joboption_validation(self) -> list[JobOptionValidationResult]:
        """Let cryoplug check the values, and refuse a network in two fields."""
        return [*two_checkpoints(self.joboptions), *super().additional_joboption_validation()]

    def create_output_nodes(self) -> None:
        """List the denoised micrographs, for pickers, and the log file."""
        self.add_output_node(STAR_NAME, NODE_MICROGRAPHGROUPMETADATA, ["relion", "cryoplug", "denoised"])
        self.add_output_node(LOGFILE, NODE_LOGFILE, ["cryoplug", "denoise"])

    def gather_metadata(self) -> Metadata:
        """Give the settings of the job and the number of micrographs."""
        done, failed = self._lines(self._outputs()), self._failed()
        last: dict[str, Any] = next(reversed(done.values()), {})
        return {
            "MicrographCount": len(self._outputs()),
            "FailedMicrographs": sorted(failed),
            "Denoiser": {name: last.get(name) for name in _COMMON},
            "PixelSizeAngstrom": last.get("pixel_size_angstrom"),
            "MeanSigmaBefore": fmean(line["sigma_in"] for line in done.values()) if done else None,
            "MeanSigmaAfter": fmean(line["sigma_out"] for line in done.values()) if done else None,
            "LogFiles": [self.file_name(LOGFILE), self.file_name(JOURNAL_NAME)],
        }

    def prepare_clean_up_lists(self, do_harsh: bool = False) -> tuple[list[str], list[str]]:
        """Remove pictures when space is short; keep the micrographs, which pickers need."""
        return [], [self.file_name("previews")] if do_harsh and self.file("previews").is_dir() else []

    def displays(self) -> Sequence[ResultsDisplayObject]:
        """Show pictures before and after, the denoised micrographs, the failures, and the page of the run."""
        star = self.file_name(STAR_NAME)
        outputs, failed = self._outputs(), self._failed()
        count = f"Denoised: {len(outputs)}. Failed: {len(failed)}."
        advice = "Pick on the denoised micrographs; extract particles from the raw ones."
        shown: list[ResultsDisplayObject] = [
            displays.text(
                "What was done",
                [count, advice, *failed.values()],
                data=[star, self.file_name(JOURNAL_NAME)],
                flag="The micrographs that failed are in no list of this job." if failed else "",
            )
        ]
        pictures = [str(path) for name in outputs if (path := self.file(str(preview_name(name)))).is_file()]
        if pictures:
            shown.append(displays.carousel("Before and after: raw, denoised, removed", pictures, list_name=star))
        names = [str(self.file(str(name))) for name in outputs]
        shown.append(displays.carousel("Denoised micrographs", names, list_name=star))
        if self.file("report.html").is_file():
            shown.append(displays.page("Report", self.file("report.html")))
        return [*shown, displays.logfile(self.file(LOGFILE))]

    def _outputs(self) -> list[Path]:
        """Give the denoised micrographs in the order of the STAR file, by their path in the job's folder."""
        names = image_table(read_star(self.file(STAR_NAME))).names
        return [Path(name.rpartition("@")[2]).relative_to(self.output_dir) for name in dict.fromkeys(names)]

    def _lines(self, outputs: list[Path]) -> dict[Any, dict[str, Any]]:
        return last_lines(self.file(JOURNAL_NAME), outputs)

    def _failed(self) -> dict[str, str]:
        """Give the micrographs whose last try failed, with the reasons."""
        last: dict[str, dict[str, Any]] = {}
        for line in self.file(JOURNAL_NAME).read_text(encoding="utf-8", errors="replace").splitlines():
            try:
                record = json.loads(line)
            except ValueError:
                continue  # a line that a full disk has cut
            last[str(record["input"])] = record
        return {name: record["message"] for name, record in last.items() if record["status"] == "failed"}
