"""The job ``cryoplug.denoise.evaluate``: measure a network on micrographs that have even and odd halves."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from cryoplug.cli.evaluate import evaluate
from cryoplug.workflows.evaluate import EvaluateRequest
from cryoplug.workflows.evaluate.workflow import (
    CURVES_NAME,
    JSON_NAME,
    PAGE_NAME,
    PANELS_NAME,
    STAR_NAME,
    TEXT_NAME,
)
from pipeliner.job_options import JobOptionCondition, JobOptionValidationResult
from pipeliner.nodes import NODE_EVALUATIONMETRIC, NODE_LOGFILE
from pipeliner.results_display_objects import ResultsDisplayObject

from cryoplug_pipeliner import displays
from cryoplug_pipeliner.job import (
    CryoplugJob,
    Metadata,
    checkpoint_words,
    fields_of,
    micrographs_field,
    trained_model_field,
    two_checkpoints,
)

_FACTS = ("model", "checkpoint", "checkpoint_sha256", "normalize", "target", "angpix", "device")


class Evaluate(CryoplugJob):
    """Judge a network by the other half of each exposure."""

    PROCESS_NAME = "cryoplug.denoise.evaluate"
    OUT_DIR = "CryoplugEvaluate"
    command = evaluate
    called = "evaluate"
    groups = {
        "Main": ("checkpoint", "target", "direction", "require-better-than"),
        "Pixel size": ("pixel-size", "angpix"),
        "Result": ("strength", "highpass", "lowpass", "merge-highres"),
        "Compute options": ("device", "precision", "tta", "tile", "max-memory"),
        "Advanced options": ("normalize", "accept-unproven"),
    }
    threads_flag = "--threads"

    def __init__(self) -> None:
        super().__init__()
        self.jobinfo.display_name = "Evaluate a denoiser"
        self.joboptions["checkpoint"].deactivate_if = JobOptionCondition([("trained_model", "!=", "")])

    def add_inputs(self) -> None:
        """Add the micrographs and the network."""
        self.joboptions["in_mics"] = micrographs_field(
            help_text=(
                "Micrographs of MotionCorr that have halves: named in the STAR file, or beside them (X_EVN.mrc and "
                "X_ODD.mrc)."
            )
        )
        self.joboptions["trained_model"] = trained_model_field()

    def input_words(self) -> list[str]:
        """Give the inputs, and measure again when the job is continued, because the STAR file may have grown."""
        again = ["--overwrite"] if self.is_continue else []
        star = self.joboptions["in_mics"].value
        return [star, "--output", self.output_dir, *again, *checkpoint_words(self.joboptions)]

    def check(self, parsed: dict[str, Any]) -> None:
        """Check the options as the command does."""
        EvaluateRequest(**fields_of(EvaluateRequest, parsed))

    def additional_joboption_validation(self) -> list[JobOptionValidationResult]:
        """Let cryoplug check the values, and refuse a network in two fields."""
        return [*two_checkpoints(self.joboptions), *super().additional_joboption_validation()]

    def create_output_nodes(self) -> None:
        """List the figures, and the table as text."""
        self.add_output_node(JSON_NAME, NODE_EVALUATIONMETRIC, ["cryoplug"])
        self.add_output_node(TEXT_NAME, NODE_LOGFILE, ["cryoplug", "evaluate"])

    def create_post_run_output_nodes(self) -> None:
        """List the figures of every micrograph, unless a name does not fit into a STAR file."""
        if self.file(STAR_NAME).is_file():
            self.add_output_node(STAR_NAME, NODE_EVALUATIONMETRIC, ["cryoplug", "micrographs"])

    def gather_metadata(self) -> Metadata:
        """Give the figures for the metadata."""
        found = self._evaluation()
        return {
            "MicrographCount": found["summary"]["micrographs"],
            "Denoiser": {name: found.get(name) for name in _FACTS},
            "Verdict": found["words"],
            "Evaluation": displays.scores_of(found["summary"]),
            "LogFiles": [self.file_name(TEXT_NAME)],
        }

    def displays(self) -> Sequence[ResultsDisplayObject]:
        """Show the verdict, the table, curves and pictures, and the page."""
        found, source = self._evaluation(), self.file_name(JSON_NAME)
        pictures = (
            (CURVES_NAME, "Resolution", "Correlation with the other half, and what error is left, by resolution"),
            (PANELS_NAME, "The first micrograph", "Raw, denoised, the best Gaussian blur, and what pure noise became"),
        )
        return [
            displays.text("How good it is", found["words"], data=[source]),
            *displays.evaluation_tables(found["summary"], source=source),
            *(
                displays.image(title, self.file(name), description=description, data=[source])
                for name, title, description in pictures
                if self.file(name).is_file()
            ),
            *([displays.page("Report", self.file(PAGE_NAME))] if self.file(PAGE_NAME).is_file() else []),
        ]

    def _evaluation(self) -> dict[str, Any]:
        return json.loads(self.file(JSON_NAME).read_text(encoding="utf-8"))
