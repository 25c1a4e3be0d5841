"""Wizards of the forms: choose a checkpoint, and preview one denoised micrograph."""

from __future__ import annotations

import webbrowser
from pathlib import Path
from typing import Any

import pyworkflow.object as pwobj
from pyworkflow.wizard import Wizard

from cryoplug_scipion.objects import CryoplugModel
from cryoplug_scipion.program import CryoplugError
from cryoplug_scipion.protocols import CryoplugProtDenoise, CryoplugProtEvaluate, CryoplugProtTrain
from cryoplug_scipion.protocols.preview import preview

GENERAL = "general"
"""The model that comes with cryoplug."""


class CryoplugCheckpointWizard(Wizard):
    """Choose the general model or a model that was trained in this project."""

    _targets = [
        (CryoplugProtDenoise, ["checkpoint"]),
        (CryoplugProtEvaluate, ["checkpoint"]),
        (CryoplugProtTrain, ["init"]),
    ]

    def show(self, form: Any, *params: Any) -> None:
        """Show the list, and put the choice into the form."""
        from pyworkflow.gui import dialog
        from pyworkflow.gui.tree import ListTreeProviderString

        provider = ListTreeProviderString([pwobj.String(item) for item in checkpoints(form.protocol.getProject())])
        chosen = dialog.ListDialog(
            form.root, "Checkpoints", provider, "Select the model to denoise with, or to start from"
        )
        if chosen.values:
            form.setVar(
                "init" if isinstance(form.protocol, CryoplugProtTrain) else "checkpoint", chosen.values[0].get()
            )


class CryoplugPreviewWizard(Wizard):
    """Denoise the first micrograph with the current form, and show it before and after."""

    _targets = [(CryoplugProtDenoise, ["target", "strength", "highpass", "lowpass"])]

    def show(self, form: Any, *params: Any) -> None:
        """Denoise, and open the picture in the browser."""
        from pyworkflow.gui import dialog

        try:
            picture = preview(form.protocol)
        except CryoplugError as error:
            dialog.showError("No preview", str(error), form.root)
            return
        webbrowser.open(picture.resolve().as_uri())


def checkpoints(project: Any) -> list[str]:
    """Give the possible values of the checkpoint field: the general model, then trained models, newest first."""
    trained = [
        output.getPath()
        for run in project.getRuns()
        for _, output in run.iterOutputAttributes(CryoplugModel)
        if Path(output.getPath()).is_dir()
    ]
    return [GENERAL, *reversed(trained)]


__all__ = ["CryoplugCheckpointWizard", "CryoplugPreviewWizard"]
