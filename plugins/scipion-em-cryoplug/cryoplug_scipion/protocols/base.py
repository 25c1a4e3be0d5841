"""Common parts of the three protocols: the form, the device, and how a command is run."""

from __future__ import annotations

import os
import shlex
from pathlib import Path
from typing import Any, Callable, Iterable

from pwem.protocols import EMProtocol
from pyworkflow.protocol import LEVEL_ADVANCED, STEPS_SERIAL, params

from cryoplug_scipion import Plugin
from cryoplug_scipion.described import Option, options
from cryoplug_scipion.form import arguments, choices
from cryoplug_scipion.listing import Listing

FINISHED = (0, 3)
"""Exit codes with a result: 0, all done; 3, done, but some micrographs failed and were named."""
SHOWN_FAILURES = 5


class CryoplugProtocol(EMProtocol):
    """Base of the protocols."""

    _base = True
    stepsExecutionMode = STEPS_SERIAL
    _shown: dict[str, tuple[str, ...]] = {}
    """Names of the options in the form, by command; cryoplug itself gives their help and defaults."""

    def __init__(self, **kwargs: Any) -> None:
        for command, names in self._shown.items():
            for option in self.options(command, names):
                chosen = kwargs.get(option.attribute)
                if option.kind == "choice" and isinstance(chosen, str):
                    if chosen not in choices(option):
                        raise ValueError(f"{option.attribute} {chosen!r} (allowed: {', '.join(choices(option))})")
                    kwargs[option.attribute] = choices(option).index(chosen)
        super().__init__(**kwargs)

    # ------------------------------------------------------------------ form

    @staticmethod
    def options(command: str, names: Iterable[str]) -> list[Option]:
        """Give the named options that the installed cryoplug has."""
        known = options(command, Plugin.program())
        return [known[name] for name in names if name in known]

    def add_model(self, form: Any) -> None:
        """Add the field for a model that another protocol trained."""
        form.addParam(
            "inputModel",
            params.PointerParam,
            pointerClass="CryoplugModel",
            allowsNull=True,
            label="Trained model",
            help="A model of the protocol 'train a denoiser'. If it is empty, the checkpoint below is used: "
            "by default the general model, which comes with cryoplug and needs no training.",
        )

    def add_machine(self, form: Any) -> None:
        """Add the fields that all programs in Scipion have, and a field for further options."""
        form.addHidden(
            params.USE_GPU,
            params.BooleanParam,
            default=True,
            label="Use a GPU if there is one?",
            help="No: compute on the CPU.",
        )
        form.addHidden(
            params.GPU_LIST,
            params.StringParam,
            default="",
            label="GPU IDs",
            help="Numbers of GPUs, such as 0 or 0,1. Empty: cryoplug takes the first one, or the CPU where there is none.",
        )
        form.addParam(
            "moreOptions",
            params.StringParam,
            default="",
            expertLevel=LEVEL_ADVANCED,
            label="Other options",
            help="Options of the command line that this form does not show, as you would write them there.",
        )
        form.addParallelSection(threads=4, mpi=0)

    # --------------------------------------------------------------- command

    def machine_words(self, command: str) -> list[str]:
        """Give the words for threads, device, and the options that the user wrote."""
        # More threads than processors wait for each other, for minutes.
        threads = min(self.numberOfThreads.get(), len(os.sched_getaffinity(0)))
        words = ["--threads", f"{threads}"] if threads > 0 else []
        gpus = self.getGpuList()
        if not self.useGpu.get():
            words += ["--device", "cpu"]
        elif gpus and "gpu" in options(command, Plugin.program()):
            words += ["--gpu", ",".join(map(str, gpus))]
        elif gpus:
            words += ["--device", f"cuda:{gpus[0]}"]
        return words + shlex.split(self.moreOptions.get(""))

    def form_words(self, command: str) -> list[str]:
        """Give the words for the fields that the user filled in."""
        return arguments(self, self.options(command, self._shown[command]))

    def model_words(self, command: str) -> list[str]:
        """Give the words for the network."""
        model = self.inputModel.get()
        return (
            ["--checkpoint", model.getPath()]
            if model is not None
            else arguments(self, self.options(command, ["checkpoint"]))
        )

    def run_command(self, words: list[str], take: Callable[[dict[str, Any]], object]) -> int:
        """Run a command to its end.

        Parameters
        ----------
        words
            The command and its arguments.
        take
            Called with every record as it arrives.

        Raises
        ------
        CryoplugError
            The command ended without a result; the protocol then fails with this message.
        """
        self.info(f"cryoplug {shlex.join(words)}")
        run = Plugin.program().start(words, self.info)
        while not run.has_ended:
            for record in run.records(None):
                take(record)
        return run.exit_code(FINISHED)

    def listing(self, name: str) -> Listing:
        """Make a list of micrographs, a STAR file in the folder of this protocol."""
        return Listing(Path(self._getExtraPath(f"{name}.star")), Path(self._getExtraPath("links")))

    def getGpuList(self) -> list[int]:
        """Give the chosen GPUs; none: cryoplug chooses."""
        return super().getGpuList() if self.gpuList.get() else []

    # ------------------------------------------------------------------ info

    def report(self) -> str:
        """Give the HTML page of the run; it may not be there yet."""
        raise NotImplementedError


def told_failures(failures: dict[str, str]) -> list[str]:
    """Give lines with the first failed micrographs and the reasons."""
    lines = [f"{len(failures)} failed:"] if failures else []
    lines += [f"  {why}" for why in list(failures.values())[:SHOWN_FAILURES]]
    if len(failures) > SHOWN_FAILURES:
        lines.append(f"  and {len(failures) - SHOWN_FAILURES} more; denoise.jsonl in the folder 'extra' names them")
    return lines
