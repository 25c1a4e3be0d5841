"""Viewers for "Analyze results": they open the HTML page of a run in the browser."""

from __future__ import annotations

import webbrowser
from pathlib import Path
from typing import Any

from pyworkflow.viewer import MessageView, View, Viewer

from cryoplug_scipion.objects import CryoplugEvaluation, CryoplugModel
from cryoplug_scipion.protocols import CryoplugProtDenoise, CryoplugProtEvaluate, CryoplugProtTrain


class PageView(View):
    """A page, or a folder of pictures, in the browser."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def show(self) -> None:
        """Open it."""
        webbrowser.open(self.path.resolve().as_uri())


class CryoplugViewer(Viewer):
    """Shows the page of a denoise, train or evaluate protocol, or of its outputs."""

    _name = "cryoplug page"
    _targets = [CryoplugProtDenoise, CryoplugProtTrain, CryoplugProtEvaluate, CryoplugModel, CryoplugEvaluation]

    def _visualize(self, obj: Any, **kwargs: Any) -> list[View]:
        if isinstance(obj, (CryoplugModel, CryoplugEvaluation)):
            obj = self._project.getProtocol(obj.getObjParentId())
        page = Path(obj.report())
        if page.is_file():
            return [PageView(page)]
        text = f"{page} does not exist yet: the protocol has not written it, or previews are switched off."
        return [MessageView(text, "No page yet", tkParent=self._tkRoot)]


class CryoplugPreviewsViewer(Viewer):
    """Shows the folder of pictures of a denoise protocol: raw, denoised, and what was removed."""

    _name = "cryoplug previews"
    _targets = [CryoplugProtDenoise]

    def _visualize(self, obj: Any, **kwargs: Any) -> list[View]:
        folder = obj.previews_folder()
        if folder.is_dir():
            return [PageView(folder)]
        return [
            MessageView(f"{folder} does not exist: no preview is written yet.", "No previews", tkParent=self._tkRoot)
        ]


__all__ = ["CryoplugPreviewsViewer", "CryoplugViewer"]
