"""Train a network on the user's own micrographs."""

from __future__ import annotations

import shlex
from enum import Enum
from pathlib import Path
from typing import Any

from pyworkflow.protocol import params
from pyworkflow.utils import Message

from cryoplug_scipion.form import add_options
from cryoplug_scipion.inputs import GrowingSet, exposures
from cryoplug_scipion.listing import Optics
from cryoplug_scipion.objects import CryoplugModel
from cryoplug_scipion.program import CryoplugError
from cryoplug_scipion.protocols.base import CryoplugProtocol, told_failures

HALVES, SINGLE = 0, 1


class CryoplugTrainOutputs(Enum):
    """Outputs of the protocol."""

    outputModel = CryoplugModel


class CryoplugProtTrain(CryoplugProtocol):
    """Train a network on your own micrographs: on even and odd halves, or on the micrographs alone.

    Halves are the two sets that motion correction writes when it splits even and odd frames. The general model needs no
    training; try it first. To train it further, write general into Init and 2.6 into Angpix, and set the minutes. If
    training was stopped, Continue goes on where it stopped.
    """

    _label = "train a denoiser"
    _possibleOutputs = CryoplugTrainOutputs
    _shown = {
        "convert": ("angpix", "normalize", "accept-unproven"),
        "train": (
            "init",
            "model",
            "model-option",
            "epochs",
            "minutes",
            "batch-size",
            "lr",
            "val-split",
            "seed",
            "max-batches",
            "require-better-than",
            "no-evaluation",
            "checkpoint-minutes",
        ),
    }

    # ------------------------------------------------------------------ form

    def _defineParams(self, form: Any) -> None:
        form.addSection(label=Message.LABEL_INPUT)
        form.addParam(
            "pairs",
            params.EnumParam,
            choices=["even and odd halves", "micrographs alone"],
            default=HALVES,
            display=params.EnumParam.DISPLAY_COMBO,
            important=True,
            label="Train on",
            help="Halves are best, because their noise is independent. With micrographs alone, "
            "cryoplug measures their noise and adds similar noise.",
        )
        for name, label, pairs in (
            ("inputEven", "Even halves", HALVES),
            ("inputOdd", "Odd halves", HALVES),
            ("inputMicrographs", "Micrographs", SINGLE),
        ):
            form.addParam(
                name,
                params.PointerParam,
                pointerClass="SetOfMicrographs",
                condition=f"pairs=={pairs}",
                important=True,
                label=label,
                help="Output of motion correction, not filtered.",
            )
        add_options(form, self.options("convert", ("angpix",)))
        add_options(form, self.options("convert", ("normalize", "accept-unproven")), expert=True)
        form.addSection(label="Training")
        add_options(form, self.options("train", self._shown["train"][:5]))
        add_options(form, self.options("train", self._shown["train"][5:]), expert=True)
        self.add_machine(form)

    # ----------------------------------------------------------------- steps

    def _insertAllSteps(self) -> None:
        words = self.form_words("train") + self.machine_words("train")
        self._insertFunctionStep(self.convertStep, shlex.join(self.form_words("convert")))
        self._insertFunctionStep(self.trainStep, shlex.join(words))
        self._insertFunctionStep(self.createOutputStep, shlex.join(words))

    def convertStep(self, words: str) -> None:
        """Pack the micrographs into a store of training pairs."""
        exposure_list = self.listing("training")
        inputs = [GrowingSet(pointer.get()) for pointer in self._pointers()]
        for one in inputs:
            one.look()
        # The even half stands for the exposure: the sum of both is not among the inputs.
        rows = exposures(inputs[0], *inputs) if len(inputs) == 2 else exposures(inputs[0])
        if not rows:
            raise CryoplugError(
                "no micrograph has two halves: the names of the micrographs in the two sets do not agree"
            )
        exposure_list.add(rows)
        exposure_list.write(Optics.of(self._pointers()[0].get()))
        kind = "halves" if self.pairs.get() == HALVES else "single"
        failures: dict[str, str] = {}

        def take(record: dict[str, Any]) -> None:
            if record.get("status") == "failed":
                failures[record["input"]] = record["message"]

        fixed = [
            "convert",
            str(exposure_list.path),
            "-o",
            self._getExtraPath("store"),
            "--pairs",
            kind,
            "--store",
            "whole",
        ]
        self.run_command([*fixed, *shlex.split(words)], take)
        self.summaryVar.set("\n".join(told_failures(failures)))
        self._store(self.summaryVar)

    def trainStep(self, words: str) -> None:
        """Train, or go on with training."""
        folder = Path(self._getExtraPath("saved_models"))
        resume = ["--resume"] if any(folder.glob("*/run.json")) else []
        fixed = ["train", self._getExtraPath("store"), "--save", "--checkpoint-dir", str(folder)]

        def take(record: dict[str, Any]) -> None:
            if "words" in record:
                self._verdict().write_text("\n".join(record["words"]) + "\n", encoding="utf-8")

        self.run_command([*fixed, *resume, *shlex.split(words)], take)

    def createOutputStep(self, words: str) -> None:
        """Pass the run folder to Scipion; cryoplug uses its best epoch, also after more epochs."""
        model = CryoplugModel(path=self._run_folder())
        if self._verdict().is_file():
            model.setVerdict(self._verdict().read_text(encoding="utf-8").splitlines()[0])
        self._defineOutputs(outputModel=model)
        for pointer in self._pointers():
            self._defineSourceRelation(pointer, model)

    def _pointers(self) -> list[Any]:
        return [self.inputEven, self.inputOdd] if self.pairs.get() == HALVES else [self.inputMicrographs]

    def _run_folder(self) -> str:
        found = sorted(Path(self._getExtraPath("saved_models")).glob("*/epoch_*/checkpoint.json"))
        if not found:
            raise CryoplugError("training ended, but kept no checkpoint; the log says why")
        return str(found[-1].parents[1])

    def _verdict(self) -> Path:
        return Path(self._getExtraPath("verdict.txt"))

    # ------------------------------------------------------------------ info

    def report(self) -> str:
        """Give the HTML page: losses, the verdict, and results on pairs that the network has not seen."""
        pages = sorted(Path(self._getExtraPath("saved_models")).glob("*/report.html"))
        return str(pages[-1]) if pages else self._getExtraPath("saved_models", "report.html")

    def _summary(self) -> list[str]:
        if getattr(self, "outputModel", None) is None:
            return ["The network is not trained yet."]
        lines = self._verdict().read_text(encoding="utf-8").splitlines() if self._verdict().is_file() else []
        return [f"The model is in {self.outputModel.getPath()}.", *lines, *self.summaryVar.get("").splitlines()]

    def _citations(self) -> list[str]:
        return ["Lehtinen2018"] if self.pairs.get() == HALVES else []
