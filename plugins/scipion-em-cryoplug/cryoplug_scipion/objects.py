"""Outputs of the protocols besides micrographs: a trained model, and an evaluation."""

from __future__ import annotations

import pyworkflow.object as pwobj
from pwem.objects import EMObject


class CryoplugModel(EMObject):
    """A trained network: a run folder of cryoplug, which holds its best checkpoint."""

    def __init__(self, path: str | None = None, **kwargs: object) -> None:
        super().__init__(**kwargs)
        self._path = pwobj.String(path)
        self._verdict = pwobj.String()

    def getPath(self) -> str:
        """Give its folder, relative to the project."""
        return self._path.get()

    def setVerdict(self, text: str) -> None:
        """Keep the verdict of cryoplug."""
        self._verdict.set(text)

    def getVerdict(self) -> str:
        """Give the verdict of cryoplug on micrographs that the network has not seen; empty if it was not evaluated."""
        return self._verdict.get("")

    def __str__(self) -> str:
        return f"CryoplugModel ({self.getVerdict() or self.getPath()})"


class CryoplugEvaluation(EMObject):
    """Gain of a denoiser over the raw micrograph and over the best Gaussian blur, in decibels."""

    def __init__(self, **kwargs: object) -> None:
        super().__init__(**kwargs)
        self._gainOverRaw = pwobj.Float()
        self._gainOverGaussian = pwobj.Float()
        self._micrographs = pwobj.Integer()
        self._verdict = pwobj.String()

    def fill(self, record: dict) -> None:
        """Take the figures from cryoplug's record of an evaluation."""
        verdict = record["summary"]["verdict"]
        gains = {name: item["gain_db"] for name, item in verdict["comparisons"].items()}
        self._gainOverRaw.set(gains.get("identity"))
        self._gainOverGaussian.set(gains.get("gaussian"))
        self._micrographs.set(record["summary"]["micrographs"])
        self._verdict.set(" ".join(record["words"]))

    def getGainOverRaw(self) -> float:
        """Give the gain in signal-to-noise ratio over the raw micrograph, in decibels."""
        return self._gainOverRaw.get()

    def getGainOverGaussian(self) -> float:
        """Give the gain in signal-to-noise ratio over the best Gaussian blur, in decibels."""
        return self._gainOverGaussian.get()

    def getVerdict(self) -> str:
        """Give the verdict of cryoplug, in a few sentences."""
        return self._verdict.get("")

    def __str__(self) -> str:
        return f"CryoplugEvaluation ({self.getVerdict()[:80]})"
