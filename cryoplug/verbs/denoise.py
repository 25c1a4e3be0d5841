"""``cryoplug.denoise``: an image in memory, or files as ``cryoplug denoise`` does."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Unpack, get_overloads, overload

import numpy.typing as npt

from cryoplug.core.micrograph import ImageF32
from cryoplug.core.shard import Shard
from cryoplug.errors import UsageError
from cryoplug.models.shipped import GENERAL
from cryoplug.verbs.applied import Applied, explains_applied, full_signature, refuse_unknown
from cryoplug.verbs.arguments import AnyPath, AnyPaths
from cryoplug.verbs.denoise_files import denoise_files
from cryoplug.verbs.denoise_image import as_image, denoise_image
from cryoplug.verbs.outcome import Note, Outcome, Progress


@overload
def denoise(
    inputs: npt.NDArray[Any],
    *,
    pixel_size_angstrom: float | None = None,
    pixel_size: float | None = None,
    checkpoint: AnyPath = GENERAL,
    note: Note | None = None,
    **applied: Unpack[Applied],
) -> ImageF32: ...


@overload
def denoise(
    inputs: AnyPaths,
    output: AnyPath,
    *,
    checkpoint: AnyPath = GENERAL,
    star: AnyPath | None = None,
    voltage: float | None = None,
    cs: float | None = None,
    halves: bool = False,
    even: AnyPaths = (),
    odd: AnyPaths = (),
    pixel_size: float | None = None,
    pixel_size_angstrom: float | None = None,
    gpu: int | Sequence[int] = (),
    processes: int | None = None,
    shard: Shard | str | None = None,
    float16: bool = False,
    watch: bool = False,
    poll: float = 15.0,
    settle: float = 60.0,
    idle_exit: float | None = None,
    previews: bool = True,
    report: AnyPath | None = None,
    overwrite: bool = False,
    progress: Progress | None = None,
    note: Note | None = None,
    **applied: Unpack[Applied],
) -> Outcome: ...


@explains_applied
def denoise(inputs: Any, output: Any = None, **options: Any) -> Any:
    """Denoise an image in memory, or micrographs in files.

    Give an array, and the denoised array comes back. Give files and an output folder, and it does what the command
    ``cryoplug denoise`` does: same options, same defaults, same files, same errors.

    Use denoised pixels for looking and picking; extract particles from the raw micrographs.

    Parameters
    ----------
    inputs
        An image ``(y, x)``: any real type, finite, not constant, in any grey scale. Or files: one path or several, folders,
        patterns such as ``"Micrographs/*.mrc"``, RELION STAR files and cryoSPARC datasets (``.cs``). Give ``()`` if `even`
        and `odd` name the files.
    output
        Folder for the denoised MRC files, made when missing. Only with files, where it is required.
    checkpoint
        The network: ``"general"`` (the model that comes with cryoplug), a run folder (its best epoch), an ``epoch_NNNN``
        folder, or a folder of ``.bin`` files of the founding program.
    pixel_size, pixel_size_angstrom
        Pixel size in angstrom; both names mean the same, so give one. An array needs it for networks that work at their own
        pixel size, such as the general model. For files, it beats list and header.
    star
        STAR file to write at the end, without the micrographs that failed.
    voltage, cs
        Kilovolts and millimetres, to write into a STAR file of plain files; RELION needs both.
    halves, even, odd
        Use the even and odd half of each exposure as well as their sum; `even` and `odd` say where the halves are if they
        are not beside the micrographs.
    gpu
        Numbers of GPUs, from 0; several get processes of their own.
    processes
        Processes that share each GPU (None: one). More than one process imports your script once more, so it needs
        ``if __name__ == "__main__":``.
    shard
        Part of the micrographs, as in ``"0/4"``; None takes the part that Slurm or torchrun gives, else all.
    float16
        Write float16 (MRC mode 12): half the bytes, 3 digits.
    watch, poll, settle, idle_exit
        Keep looking for new micrographs, every `poll` seconds; take a file when it has not changed for `settle` seconds; end
        when nothing happened for `idle_exit` seconds (None: at a signal).
    previews, report
        Write a picture of each micrograph, and the page of the run (``report.html`` in `output` unless `report` names
        another file).
    overwrite
        Redo and replace what an earlier run left; without it, finished files are skipped.
    progress
        Called with the `FileResult` of each file, as it comes; ``print`` will do. Only with files.
    note
        Called with each remark, a sentence; ``print`` will do.
    **applied
        See `Applied`.

    Returns
    -------
    ImageF32 or Outcome
        For an array: float32 ``(y, x)`` in the grey values of the image, of the same shape unless `output_angpix` is given.
        For files: what was written, what failed, and what is worth knowing; see `Outcome`.

    Raises
    ------
    UsageError
        Options are out of range or contradict each other, or a pixel size is needed and not given. Nothing was begun.
    InputError
        Nothing to denoise was found, or no file, not the checkpoint, or not the array can be used. If only some files fail,
        there is no error: see `Outcome.failures`.
    StorageError
        The output cannot be written; finished files are safe.
    DeviceError
        The GPU is missing, or memory ran out.
    Stopped
        Ctrl-C or SIGTERM came; call again with the same arguments to go on.

    See Also
    --------
    Denoiser : Load the network once, for many arrays.
    docs/commands.md : All options in the words of the command line.

    Examples
    --------
    An array:

    >>> import cryoplug, numpy as np
    >>> micrograph = np.random.default_rng(1).normal(100, 10, (128, 128)).astype(np.float32)
    >>> denoised = cryoplug.denoise(micrograph, pixel_size_angstrom=2.6)
    >>> denoised.shape, denoised.dtype
    ((128, 128), dtype('float32'))

    Files, with a STAR file for RELION:

    >>> made = cryoplug.simulate("simulated", count=2, size=128)
    >>> done = cryoplug.denoise("simulated/micrographs.star", "denoised", star="denoised/micrographs.star")
    >>> done.outputs[0], done.lists
    (PosixPath('denoised/simulated/noisy/mic_0001.mrc'), (PosixPath('denoised/micrographs.star'),))
    >>> done.failures
    ()
    """
    refuse_unknown("denoise", options, _FOR_FILES.parameters)
    stated = [options.pop(name) for name in ("pixel_size", "pixel_size_angstrom") if options.get(name) is not None]
    if len(stated) > 1:
        raise UsageError("pixel_size and pixel_size_angstrom are two names of the same; give one of them")
    options["pixel_size"] = stated[0] if stated else None
    options.pop("pixel_size_angstrom", None)
    image = as_image(inputs)
    if image is not None:
        _refuse_for_an_array(("output",) if output is not None else (), options)
        return denoise_image(image, **{name: options[name] for name in options if name in _FOR_AN_ARRAY.parameters})
    return denoise_files(inputs, output, **options)


_FOR_AN_ARRAY, _FOR_FILES = map(full_signature, get_overloads(denoise))
# What help() and editors that look at the running function show: the longer of the two forms, whose output an array has not.
denoise.__signature__ = _FOR_FILES.replace(  # type: ignore[attr-defined]
    parameters=[
        item.replace(default=None) if item.name == "output" else item for item in _FOR_FILES.parameters.values()
    ]
)


def _refuse_for_an_array(also: tuple[str, ...], options: dict[str, Any]) -> None:
    allowed = [name for name in _FOR_AN_ARRAY.parameters if name != "inputs"]
    foreign = [*also, *(name for name in options if name not in allowed and options[name] is not None)]
    if foreign:
        raise UsageError(f"{', '.join(foreign)}: for files, not for an array (allowed: {', '.join(allowed)})")
