"""Everything once more with cryosparc-tools 4.7, in the environment beside this one."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import cryosparc
import pytest

HERE = Path(__file__).parent


@pytest.mark.skipif(cryosparc.__version__.startswith("4."), reason="this is that run")
def test_all_of_it_holds_with_cryosparc_tools_4_7() -> None:
    python = Path(f"{sys.prefix}-4.7/bin/python")
    if not python.is_file():
        pytest.fail(f"{python} is not there; make both environments with {HERE.parent / 'install.sh'} {sys.prefix}")
    command = [str(python), "-m", "pytest", "-q", "-c", str(HERE.parents[1] / "pytest.ini"), str(HERE)]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment, timeout=1800)
    assert done.returncode == 0, done.stdout[-8000:] + done.stderr[-2000:]
    print(done.stdout[-400:])
