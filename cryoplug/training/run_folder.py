"""The folder of a run: best checkpoint, metrics, settings, and the state from which it can go on.

::

    saved_models/cryo_cnn/
        epoch_0004/              the best checkpoint; the old one is deleted only when the new one is safe
        run.json                 the settings, and whether the run is finished
        metrics.jsonl            one record an epoch
        validation_indices.txt   the held-out patches, one index a line
        loss_curve.png
        report.html              the page of the run
        resume/state.safetensors
"""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from types import TracebackType
from typing import Any

from cryoplug.core.results import to_json
from cryoplug.disk.atomic import PARTIAL_SUFFIX, fsync_folder, storage_errors, write_bytes, write_text
from cryoplug.disk.lock import OutputLock
from cryoplug.errors import FormatError
from cryoplug.models.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from cryoplug.models.epoch_folders import EPOCH_FOLDER

MAX_RUN_JSON_BYTES = 16 << 20
_LOCK_NAME = ".cryoplug-lock"


class RunFiles:
    """The contents of a run folder, for reading; nothing is created or locked.

    Parameters
    ----------
    path
        The run folder; it may be missing.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def lock_path(self) -> Path:
        """The file of the claim of a live run."""
        return self.path / _LOCK_NAME

    @property
    def state_path(self) -> Path:
        """The file with the state from which the run can go on."""
        return self.path / "resume" / "state.safetensors"

    @property
    def loss_curve_path(self) -> Path:
        """The picture of the losses."""
        return self.path / "loss_curve.png"

    def epochs(self) -> list[Path]:
        """Return the ``epoch_NNNN`` folders."""
        if not self.path.is_dir():
            return []
        return sorted(item for item in self.path.iterdir() if item.is_dir() and EPOCH_FOLDER.fullmatch(item.name))

    def epoch_folder(self, epoch: int) -> Path:
        """Return the name of an epoch's checkpoint."""
        return self.path / f"epoch_{epoch:04d}"

    def read_request(self) -> dict[str, Any] | None:
        """Return the contents of ``run.json``, or None if there is none."""
        path = self.path / "run.json"
        if not path.is_file():
            return None
        with storage_errors(path):
            payload = path.read_bytes()[:MAX_RUN_JSON_BYTES]
        try:
            record = json.loads(payload)
        except (ValueError, RecursionError) as error:
            raise FormatError(f"{path}: not JSON ({error}); give --overwrite to start again") from error
        if not isinstance(record, dict) or not isinstance(record.get("config"), dict):
            raise FormatError(f"{path}: no config in it; give --overwrite to start again")
        return record

    def read_state(self) -> bytes | None:
        """Return the saved state, or None if there is none."""
        if not self.state_path.is_file():
            return None
        with storage_errors(self.state_path):
            return self.state_path.read_bytes()


class RunFolder(RunFiles):
    """A run folder that only this run may use; use it as a context manager.

    Parameters
    ----------
    path
        The run folder; it is created if it is missing.

    Raises
    ------
    OutputBusyError
        Another live run holds it.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        with storage_errors(path):
            path.mkdir(parents=True, exist_ok=True)
        self._lock = OutputLock(self.lock_path)

    def __enter__(self) -> RunFolder:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._lock.release()

    def write_request(self, record: dict[str, Any]) -> None:
        """Write ``run.json``."""
        write_text(self.path / "run.json", _pretty(record))

    def write_state(self, payload: bytes) -> None:
        """Replace the saved state."""
        write_bytes(self.state_path, payload)

    def forget(self) -> None:
        """Delete request, state and metrics; the checkpoint stays until a new one is safe."""
        with storage_errors(self.path):
            for name in ("run.json", "metrics.jsonl", "validation_indices.txt", "loss_curve.png", "report.html"):
                (self.path / name).unlink(missing_ok=True)
            shutil.rmtree(self.path / "resume", ignore_errors=True)

    def write_metrics(self, history: list[dict[str, Any]]) -> None:
        """Rewrite ``metrics.jsonl`` from the records of all finished epochs."""
        write_text(self.path / "metrics.jsonl", "".join(to_json(record) + "\n" for record in history))

    def write_validation_indices(self, text: str) -> None:
        """Write the list of validation patches."""
        write_text(self.path / "validation_indices.txt", text)

    def save_best(self, epoch: int, checkpoint: Checkpoint, loss: float) -> Path:
        """Write the checkpoint of an epoch; other epochs stay until `keep_only` is called.

        A run that was killed between this and saving its state comes here again with the same weights. Then the existing
        checkpoint is kept.
        """
        folder = self.epoch_folder(epoch)
        if not folder.exists():
            save_checkpoint(folder, checkpoint, loss)
            return folder
        try:
            same = load_checkpoint(folder)
            if same.sha256 == checkpoint.sha256 and same.details == json.loads(to_json(checkpoint.details)):
                return folder
        except FormatError:
            pass
        old = folder.with_name(f".{folder.name}.old{PARTIAL_SUFFIX}")
        new = folder.with_name(f".{folder.name}.new{PARTIAL_SUFFIX}")
        with storage_errors(folder):
            shutil.rmtree(old, ignore_errors=True)
            shutil.rmtree(new, ignore_errors=True)
            save_checkpoint(new, checkpoint, loss)
            os.replace(folder, old)
            os.replace(new, folder)
            fsync_folder(self.path)
            shutil.rmtree(old)
        return folder

    def keep_only(self, epoch: int) -> None:
        """Delete all epochs but one, and files that killed runs left unfinished."""
        kept = self.epoch_folder(epoch)
        if not kept.is_dir():
            return
        with storage_errors(self.path):
            for item in self.epochs():
                if item != kept:
                    shutil.rmtree(item)
            for folder in (self.path, self.path / "resume", kept):
                for item in folder.glob(f".*{PARTIAL_SUFFIX}"):
                    if item.is_dir():
                        shutil.rmtree(item)
                    else:
                        item.unlink(missing_ok=True)


def _pretty(record: dict[str, Any]) -> str:
    return json.dumps(json.loads(to_json(record)), indent=1) + "\n"
