"""Measure a denoiser on the user's own micrographs."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import Any

from pyworkflow.protocol import params
from pyworkflow.utils import Message

from cryoplug_scipion.form import add_options
from cryoplug_scipion.inputs import GrowingSet, exposures, partners, place
from cryoplug_scipion.listing import Exposure, Listing, Optics
from cryoplug_scipion.objects import CryoplugEvaluation
from cryoplug_scipion.program import CryoplugError
from cryoplug_scipion.protocols.base import CryoplugProtocol

HALVES, TRUTH = 0, 1


class CryoplugEvaluateOutputs(Enum):
    """Outputs of the protocol."""

    outputEvaluation = CryoplugEvaluation


class CryoplugProtEvaluate(CryoplugProtocol):
    """Measure a denoiser on your own micrographs, and compare it with the best simple filters.

    It uses even and odd halves (one denoised, the other not), or a known truth, such as that of simulated micrographs.
    The first line says whether the denoised micrograph is better than the raw one and than a Gaussian blur.
    """

    _label = "evaluate a denoiser"
    _possibleOutputs = CryoplugEvaluateOutputs
    _shown = {
        "evaluate": (
            "direction",
            "target",
            "strength",
            "merge-highres",
            "highpass",
            "lowpass",
            "normalize",
            "angpix",
            "precision",
            "tta",
            "accept-unproven",
        )
    }

    # ------------------------------------------------------------------ form

    def _defineParams(self, form: Any) -> None:
        form.addSection(label=Message.LABEL_INPUT)
        form.addParam(
            "judge",
            params.EnumParam,
            choices=["even and odd halves", "the truth"],
            default=HALVES,
            display=params.EnumParam.DISPLAY_COMBO,
            important=True,
            label="Judge by",
            help="Halves: one half is denoised and compared with the other half. "
            "The truth: noise-free micrographs with the same names.",
        )
        for name, label, judge in (
            ("inputEven", "Even halves", HALVES),
            ("inputOdd", "Odd halves", HALVES),
            ("inputMicrographs", "Micrographs", TRUTH),
            ("inputTruth", "Their truth", TRUTH),
        ):
            form.addParam(
                name,
                params.PointerParam,
                pointerClass="SetOfMicrographs",
                condition=f"judge=={judge}",
                important=True,
                label=label,
                help="Micrographs with the same name belong together.",
            )
        self.add_model(form)
        add_options(form, self.options("evaluate", ("checkpoint",)), expert=True)
        form.addSection(label="Denoising")
        add_options(form, self.options("evaluate", self._shown["evaluate"][:6]))
        add_options(form, self.options("evaluate", self._shown["evaluate"][6:]), expert=True)
        self.add_machine(form)

    # ----------------------------------------------------------------- steps

    def _insertAllSteps(self) -> None:
        self._insertFunctionStep(self.evaluateStep)

    def evaluateStep(self) -> None:
        """Measure, and pass the figures to Scipion."""
        pointers = (
            [self.inputEven, self.inputOdd] if self.judge.get() == HALVES else [self.inputMicrographs, self.inputTruth]
        )
        inputs = [GrowingSet(pointer.get()) for pointer in pointers]
        for one in inputs:
            one.look()
        words = self._by_halves(*inputs) if self.judge.get() == HALVES else self._by_truth(*inputs)
        words += [*self.model_words("evaluate"), *self.form_words("evaluate"), *self.machine_words("evaluate")]
        result = CryoplugEvaluation()

        def take(record: dict[str, Any]) -> None:
            if "summary" in record:
                result.fill(record)

        output = self._getExtraPath("evaluation")
        again = ["--overwrite"] if Path(output).exists() else []
        self.run_command(["evaluate", *words, "-o", output, *again], take)
        self._defineOutputs(outputEvaluation=result)
        for pointer in pointers:
            self._defineSourceRelation(pointer, result)

    def _by_halves(self, even: GrowingSet, odd: GrowingSet) -> list[str]:
        return [str(self._listed("halves", exposures(even, even, odd), self.inputEven).path)]

    def _by_truth(self, noisy: GrowingSet, truth: GrowingSet) -> list[str]:
        """Write two lists; the truth gets links named after the micrographs, because cryoplug pairs files by name."""
        pairs = partners(noisy, truth)
        raw = self._listed(
            "micrographs", [Exposure(number, place(noisy.items[number])) for number in pairs], self.inputMicrographs
        )
        links = Path(self._getExtraPath("truth"))
        links.mkdir(exist_ok=True)
        clean = []
        for number, (item,) in pairs.items():
            index, file = place(item)
            link = links / raw.file_of(number).name
            if not link.is_symlink():
                link.symlink_to(Path(file).absolute())
            clean.append(Exposure(number, (index, str(link))))
        return [str(raw.path), "--clean", str(self._listed("truth", clean, self.inputTruth).path)]

    def _listed(self, name: str, rows: list[Exposure], of: Any) -> Listing:
        if not rows:
            raise CryoplugError("the names of the micrographs in the two sets do not agree: no two belong together")
        found = self.listing(name)
        found.add(rows)
        found.write(Optics.of(of.get()))
        return found

    # ------------------------------------------------------------------ info

    def report(self) -> str:
        """Give the HTML page: the verdict, the table, curves and pictures."""
        return self._getExtraPath("evaluation", "report.html")

    def _summary(self) -> list[str]:
        result = getattr(self, "outputEvaluation", None)
        return [result.getVerdict()] if result is not None else ["Nothing is measured yet."]
