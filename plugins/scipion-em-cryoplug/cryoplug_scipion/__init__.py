"""cryoplug in Scipion 3: the plugin, its variables, and the search for the program."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pwem
from pyworkflow import VarTypes

from cryoplug_scipion import constants
from cryoplug_scipion.program import CryoplugError, Program, beside

__version__ = "0.1.0"
_logo = "logo.png"
_references = ["Cryoplug"]


class Plugin(pwem.Plugin):
    """The plugin, with the methods that Scipion calls."""

    _homeVar = constants.CRYOPLUG_HOME
    _supportedVersions = [constants.VERSION]

    @classmethod
    def _defineVariables(cls) -> None:
        beside_scipion = Path(sys.prefix) / "cryoplug"
        home = str(beside_scipion) if beside(str(beside_scipion)).is_file() else f"cryoplug-{constants.VERSION}"
        cls._defineEmVar(
            constants.CRYOPLUG_HOME,
            home,
            description="Folder of the environment that cryoplug is installed in.",
            var_type=VarTypes.FOLDER,
        )
        cls._defineVar(
            constants.CRYOPLUG_BIN,
            "",
            description="Path of the cryoplug program, if it is not CRYOPLUG_HOME/bin/cryoplug.",
            var_type=VarTypes.PATH,
        )
        cls._defineVar(
            constants.CRYOPLUG_ENV_ACTIVATION,
            "",
            description="Shell command that activates the environment of cryoplug, such as: conda activate cryoplug",
            var_type=VarTypes.STRING,
        )

    @classmethod
    def program(cls) -> Program:
        """Give the program that the variables name."""
        activation = cls.getVar(constants.CRYOPLUG_ENV_ACTIVATION, "")
        if activation.startswith("conda "):
            activation = f"{cls.getCondaActivationCmd()} {activation}".strip()
        named = cls.getVar(constants.CRYOPLUG_BIN, "")
        if not named:
            named = "cryoplug" if activation else str(beside(cls.getHome()))
        return Program(str(Path(named).expanduser()), activation)

    @classmethod
    def validateInstallation(cls) -> list[str]:
        """Give messages about missing parts; Scipion shows them and does not start the protocol."""
        problem = cls.program().problem()
        return [problem] if problem else []

    @classmethod
    def getActiveVersion(cls, home: str | None = None, versions: list[str] | None = None) -> str:
        """Ask the program for its version; empty when it does not answer."""
        try:
            return cls.program().answer("--version").split()[1]
        except (CryoplugError, IndexError):
            return ""

    @classmethod
    def defineBinaries(cls, env: object) -> None:
        """Tell ``scipion3 installb`` how to make the environment."""
        package = os.environ.get(constants.CRYOPLUG_PACKAGE, f"cryoplug=={constants.VERSION}")
        commands = [
            (f"{sys.executable} -m venv .", "bin/python"),
            (f'bin/python -m pip install "{package}"', "bin/cryoplug"),
        ]
        env.addPackage(  # type: ignore[attr-defined]
            "cryoplug", version=constants.VERSION, tar="void.tgz", commands=commands, neededProgs=[], default=False
        )
