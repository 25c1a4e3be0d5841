"""The job ``cryoplug.denoise.train``: make training pairs from micrographs or movies, then train a network."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cryoplug.reports.evaluation_record import recorded_verdict
from cryoplug.reports.words import verdict_words
from cryoplug.training.config import TrainConfig, parse_model_options
from cryoplug.workflows.convert import ConvertRequest
from cryoplug_relion.commands import train
from cryoplug_relion.inputs import MODEL_NAME, STORE_NAME
from pipeliner.job_options import FileDescription, InputNodeJobOption, JobOptionCondition
from pipeliner.nodes import NODE_LOGFILE, NODE_MICROGRAPHMOVIEGROUPMETADATA, NODE_MLMODEL
from pipeliner.results_display_objects import ResultsDisplayObject

from cryoplug_pipeliner import displays
from cryoplug_pipeliner.job import LOGFILE, CryoplugJob, Metadata, fields_of, micrographs_field

_NEVER_JUDGED = "Not judged: the job ran with --no-evaluation."


class Train(CryoplugJob):
    """Train a network on even and odd halves, or on micrographs with added noise."""

    PROCESS_NAME = "cryoplug.denoise.train"
    OUT_DIR = "CryoplugTrain"
    command = train
    called = "relion train"
    groups = {
        "Main": ("pairs", "model", "init", "minutes", "epochs"),
        "Training pairs": (
            *("pixel-size", "angpix", "patch-size", "stride", "store", "dtype", "normalize", "test-split"),
            *("accept-unproven", "gain", "defects"),
        ),
        "Training options": (
            *("recipe", "lr", "schedule", "batch-size", "augment", "mix", "loss", "patience", "val-split", "seed"),
            "no-evaluation",
        ),
        "Compute options": ("gpu", "device", "precision", "cache", "checkpoint-minutes"),
        "Advanced options": (
            *("model-option", "warmup-steps", "clip-norm", "weight-decay", "ema", "max-batches"),
            *("crop-size", "crops-per-epoch", "shuffle"),
        ),
    }
    left_open = frozenset(
        {
            *("lr", "schedule", "batch-size", "augment", "mix", "model-option", "warmup-steps", "clip-norm"),
            *("weight-decay", "ema", "crop-size", "crops-per-epoch"),
        }
    )
    changed_in_continue = frozenset({"epochs", "minutes", "gpu", "device", "cache", "checkpoint-minutes"})

    def __init__(self) -> None:
        super().__init__()
        self.jobinfo.display_name = "Train a denoiser"
        self.joboptions["epochs"].deactivate_if = JobOptionCondition([("minutes", "!=", None)])

    def add_inputs(self) -> None:
        """Add the fields for micrographs and for movies."""
        self.joboptions["in_mics"] = micrographs_field(
            help_text=(
                "Micrographs of MotionCorr. Their halves are named in the STAR file, or lie beside them (X_EVN.mrc and "
                "X_ODD.mrc), or are summed from the movies."
            ),
            required=False,
            unless="in_movies",
        )
        self.joboptions["in_movies"] = InputNodeJobOption(
            label="Or input movies STAR file:",
            node_type=NODE_MICROGRAPHMOVIEGROUPMETADATA,
            node_kwds=["relion"],
            pattern=FileDescription("Movies STAR file", [".star"]),
            help_text="Movies to sum even and odd frames of, unshifted, where there are no micrographs of MotionCorr.",
            deactivate_if=JobOptionCondition([("in_mics", "!=", "")]),
        )

    def input_words(self) -> list[str]:
        """Give the inputs as RELION writes them."""
        given = [(name, self.joboptions[name].value) for name in ("in_mics", "in_movies")]
        return ["--o", self.output_dir, *(word for name, star in given if star for word in (f"--{name}", star))]

    def check(self, parsed: dict[str, Any]) -> None:
        """Check the options as the commands convert and train do."""
        star = parsed["in_mics"] or parsed["in_movies"] or "micrographs.star"
        pairs = {**fields_of(ConvertRequest, parsed), "patch_size": parsed["patch_size"] or None}
        ConvertRequest(inputs=(star,), output=parsed["folder"] / STORE_NAME, **pairs)
        config = {
            **fields_of(TrainConfig, parsed),
            "max_batches": parsed["max_batches"] or None,
            "model_options": parse_model_options(parsed["model_options"]),
        }
        del config["patch_size"]  # of the store, which knows it by itself
        TrainConfig(**config)

    def create_output_nodes(self) -> None:
        """List the network, for denoise and evaluate jobs, and the log file."""
        self.add_output_node(MODEL_NAME, NODE_MLMODEL, ["cryoplug"])
        self.add_output_node(LOGFILE, NODE_LOGFILE, ["cryoplug", "train"])

    def gather_metadata(self) -> Metadata:
        """Give the network and its figures for the metadata."""
        model, details = self._model(), self._checkpoint()
        return {
            "Network": {name: model[name] for name in ("model", "sha256", "normalize", "pixel_size_angstrom")},
            "Checkpoint": model["checkpoint"],
            "BestEpoch": model["best_epoch"],
            "BestLoss": model["best_loss"],
            "TrainingPairs": details.get("pairs"),
            "Verdict": self._words(),
            "Evaluation": displays.scores_of(details.get("evaluation") or {}),
            "LogFiles": [self.file_name(LOGFILE), str(self._run_folder() / "metrics.jsonl")],
        }

    def prepare_clean_up_lists(self, do_harsh: bool = False) -> tuple[list[str], list[str]]:
        """Remove the training pairs; if space is very short, also the files needed to continue."""
        resume = [str(path) for path in self.file("").glob("*/resume")] if do_harsh else []
        return [], [*([self.file_name(STORE_NAME)] if self.file(STORE_NAME).is_dir() else []), *resume]

    def displays(self) -> Sequence[ResultsDisplayObject]:
        """Show the verdict, the losses, the evaluation, and the page of the run."""
        evaluation = self._checkpoint().get("evaluation") or {}
        report = self._run_folder() / "report.html"
        best = f"Best epoch: {self._model()['best_epoch']}, loss {self._model()['best_loss']:.6g}."
        use = f"To denoise with it, choose {self.file_name(MODEL_NAME)} in a denoise job."
        return [
            displays.text("How good it is", [*self._words(), best, use], data=[self.file_name(MODEL_NAME)]),
            displays.losses(self._run_folder() / "metrics.jsonl"),
            *displays.evaluation_tables(evaluation, source=str(self._checkpoint_file())),
            *([displays.page("Report", report)] if report.is_file() else []),
            displays.logfile(self.file(LOGFILE)),
        ]

    def _model(self) -> dict[str, Any]:
        return json.loads(self.file(MODEL_NAME).read_text(encoding="utf-8"))

    def _run_folder(self) -> Path:
        return Path(self._model()["checkpoint"]).parent

    def _checkpoint_file(self) -> Path:
        return Path(self._model()["checkpoint"]) / "checkpoint.json"

    def _checkpoint(self) -> dict[str, Any]:
        return json.loads(self._checkpoint_file().read_text(encoding="utf-8"))

    def _words(self) -> list[str]:
        verdict = recorded_verdict(self._checkpoint())
        return [_NEVER_JUDGED] if verdict is None else verdict_words(verdict, pairs=self._checkpoint().get("pairs"))
