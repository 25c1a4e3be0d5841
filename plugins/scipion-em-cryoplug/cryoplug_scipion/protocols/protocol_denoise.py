"""Denoise micrographs, also while they are being taken."""

from __future__ import annotations

import time
from datetime import datetime
from enum import Enum
from pathlib import Path
from typing import Any

import mrcfile
from pwem.objects import SetOfMicrographs
from pyworkflow.protocol import params
from pyworkflow.utils import Message

from cryoplug_scipion import Plugin
from cryoplug_scipion.form import add_options
from cryoplug_scipion.inputs import GrowingSet, exposures
from cryoplug_scipion.listing import Optics
from cryoplug_scipion.program import CryoplugError, Run
from cryoplug_scipion.protocols.base import CryoplugProtocol, told_failures

LOOK_S = 2.0
"""Seconds between two looks at the input."""
USAGE = 2
"""Exit code of a micrograph that was already denoised with other options."""


class CryoplugDenoiseOutputs(Enum):
    """Outputs of the protocol."""

    outputMicrographs = SetOfMicrographs


class CryoplugProtDenoise(CryoplugProtocol):
    """Denoise micrographs for looking and picking; extract particles from the raw ones.

    The micrographs keep their names, numbers, pixel size and CTF, so picks on them fit the raw micrographs. By default the
    general model of cryoplug denoises; it needs no training. The protocol works in streaming: one cryoplug process stays in
    memory and denoises micrographs as they arrive, and the output grows. Continue denoises only new micrographs.
    """

    _label = "denoise micrographs"
    _possibleOutputs = CryoplugDenoiseOutputs
    _output = "outputMicrographs"
    _shown = {
        "denoise": (
            "target",
            "strength",
            "highpass",
            "lowpass",
            "output-angpix",
            "merge-highres",
            "halves",
            "float16",
            "previews",
            "normalize",
            "angpix",
            "precision",
            "tta",
            "tile",
            "max-memory",
            "poll",
        )
    }

    # ------------------------------------------------------------------ form

    def _defineParams(self, form: Any) -> None:
        known = {option.name: option for option in self.options("denoise", ("checkpoint", *self._shown["denoise"]))}

        def add(*names: str, expert: bool = False) -> None:
            add_options(form, [known[name] for name in names if name in known], expert=expert)

        form.addSection(label=Message.LABEL_INPUT)
        form.addParam(
            "inputMicrographs",
            params.PointerParam,
            pointerClass="SetOfMicrographs",
            important=True,
            label=Message.LABEL_INPUT_MIC,
            help="Micrographs to denoise; the set may still grow.",
        )
        self.add_model(form)
        add("checkpoint", expert=True)
        add("halves")
        for side in ("Even", "Odd"):
            form.addParam(
                f"input{side}",
                params.PointerParam,
                pointerClass="SetOfMicrographs",
                condition="halves",
                label=f"{side} halves",
                help=f"The micrographs of the {side.lower()} frames, as motion correction writes them.",
            )
        form.addSection(label="Result")
        add("target", "strength", "highpass", "lowpass", "output-angpix", "merge-highres", "float16", "previews")
        form.addSection(label="Network")
        add("tta", "precision")
        add("normalize", "angpix", "tile", "max-memory", "poll", expert=True)
        self.add_machine(form)

    # ----------------------------------------------------------------- steps

    def _insertAllSteps(self) -> None:
        # The time makes it a new step each time: after Continue, what has come since is denoised.
        self._insertFunctionStep(self.denoiseStep, str(datetime.now()))

    def _stepsCheck(self) -> None:
        """Do nothing; this method tells Scipion that the protocol works in streaming."""

    def denoiseStep(self, started: str) -> None:
        """Denoise all micrographs, also those that arrive later, until the input is closed."""
        self._list = self.listing("micrographs")
        self._failures: dict[str, str] = {}
        self._incoming = GrowingSet(self.inputMicrographs.get())
        self._halves = [GrowingSet(side.get()) for side in (self.inputEven, self.inputOdd)] if self.halves else []
        output = getattr(self, self._output, None)
        self._done: set[int] = set()
        if output is not None:
            output.loadAllProperties()  # killed in the middle of an update, the project knows less than the set itself
            self._done = set(output.getIdSet())
        words = [*self.model_words("denoise"), *self.form_words("denoise"), *self.machine_words("denoise")]
        base = ["denoise", str(self._list.path), "-o", self._getExtraPath("denoised"), *words]
        self._follow([*base, "--watch", "--settle", "0"])
        if not len(self._list):
            raise CryoplugError("there is nothing to denoise: the input is closed and has no micrograph (or no halves)")
        # In a Slurm job of several tasks cryoplug would take a part by itself; here it is alone, and takes all.
        self.run_command([*base, "--shard", "0/1"], lambda record: self._take([record]))
        self._update(closed=True)

    def _follow(self, words: list[str]) -> None:
        """Denoise with one process while the input is open; a last run does the rest."""
        run: Run | None = None
        while not self._look():
            if run is None and len(self._list):
                self.info("the input is still open; one cryoplug process denoises new micrographs as they arrive")
                run = Plugin.program().start(words, self.info)
            if run is None:
                time.sleep(LOOK_S)
                continue
            self._take(run.records(LOOK_S))
            if run.has_ended:
                run.exit_code(allowed=())
        if run is not None:
            self._take(run.stop())

    def _look(self) -> bool:
        """Look at the input, add new micrographs to the list, and tell whether the input is closed."""
        for one in (self._incoming, *self._halves):
            one.look()
        if self._list.add(exposures(self._incoming, *self._halves)):
            self._list.write(Optics.of(self.inputMicrographs.get()))
        return all(one.is_closed for one in (self._incoming, *self._halves))

    def _take(self, records: list[dict[str, Any]]) -> None:
        """Add denoised micrographs to the output."""
        new: list[tuple[int, str]] = []
        for record in records:
            number = self._list.id_of(record)
            if number is None:
                continue
            if record["status"] == "failed":
                if record["exit_code"] == USAGE:
                    raise CryoplugError(
                        f"{record['message']}; in Scipion: restart the protocol, or put the options back"
                    )
                self._failures[record["input"]] = record["message"]
                continue
            self._failures.pop(record["input"], None)
            if number not in self._done:
                self._done.add(number)
                new.append((number, record["output"]))
        if new:
            self._update(new)

    def _update(self, new: list[tuple[int, str]] | None = None, *, closed: bool = False) -> None:
        new = new or []
        output = getattr(self, self._output, None)
        is_first = output is None
        if output is None:
            output = self._createSetOfMicrographs()
            output.copyInfo(self.inputMicrographs.get())
            if self.getAttributeValue("output_angpix") is not None:
                output.setSamplingRate(_pixel_size(new[0][1]))
        else:
            output.enableAppend()
        for number, path in new:
            micrograph = self._incoming.items[number].clone(copyEnable=True)
            micrograph.setLocation(path)
            output.append(micrograph)
        self._updateOutputSet(
            self._output, output, SetOfMicrographs.STREAM_CLOSED if closed else SetOfMicrographs.STREAM_OPEN
        )
        if is_first:
            self._defineTransformRelation(self.inputMicrographs, output)
        self.summaryVar.set("\n".join(told_failures(self._failures)))
        self._store(self.summaryVar)

    # ------------------------------------------------------------------ info

    def report(self) -> str:
        """Give the HTML page: all micrographs before and after; in streaming it is kept up to date."""
        return self._getExtraPath("denoised", "report.html")

    def previews_folder(self) -> Path:
        """Give the folder of pictures, one per micrograph: raw, denoised, and what was removed."""
        return Path(self._getExtraPath("denoised", "previews"))

    def _summary(self) -> list[str]:
        output = getattr(self, self._output, None)
        if output is None:
            return ["No micrograph is denoised yet."]
        model = self.inputModel.get()
        name = model.getPath() if model is not None else self.getAttributeValue("checkpoint")
        lines = [f"{output.getSize()} micrographs denoised with {name}."]
        return [*lines, *self.summaryVar.get("").splitlines()]

    def _methods(self) -> list[str]:
        output = getattr(self, self._output, None)
        if output is None:
            return []
        return [f"{output.getSize()} micrographs were denoised with cryoplug [Cryoplug], for looking and picking."]


def _pixel_size(path: str) -> float:
    with mrcfile.open(path, header_only=True, permissive=True) as image:
        return float(image.voxel_size.x)
