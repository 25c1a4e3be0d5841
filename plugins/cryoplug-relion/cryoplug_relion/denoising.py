"""The denoise job: denoise the micrographs of a STAR file, and write a STAR file of the results."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

from cryoplug.core.results import BatchResult, FileResult
from cryoplug.core.statistics import scan_pixels
from cryoplug.errors import InputError, StorageError
from cryoplug.formats.registry import open_micrograph
from cryoplug.formats.star import image_table, read_star
from cryoplug.inputs.discovered import split_section
from cryoplug.inputs.discovery import discover
from cryoplug.workflows.denoise import DenoiseRequest, denoise

from cryoplug_relion import nodes
from cryoplug_relion.inputs import only_micrographs
from cryoplug_relion.logfile import FILE_NAME as LOGFILE
from cryoplug_relion.logfile import Logfile, check_logfile, listed
from cryoplug_relion.pictures import View, view
from cryoplug_relion.release import release_of_job
from cryoplug_relion.supervisor import ENDINGS_WITH_RESULT, outputs_are_complete
from cryoplug_relion.talk import Talk

STAR_NAME = "micrographs_denoised.star"
COARSER = (
    "these micrographs are coarser than the raw ones, and picks on them count their pixels: before extracting from the raw "
    "ones, multiply rlnCoordinateX and rlnCoordinateY by their pixel size over the raw one (docs/relion.md has the command)"
)
"""Advice for the user if the denoised micrographs have another pixel size."""
_READERS = 4
"""Threads that read results: one alone reads 20 to 30 large micrographs a second, and a GPU makes more."""
_PICTURES = 4
"""Most micrographs that the log file shows: the first, the last, and some between them."""


def denoise_job(*, folder: Path, in_mics: str | None, in_movies: str | None, as_json: bool, **fields: Any) -> int:
    """Denoise new micrographs, and write the files that RELION looks for.

    Parameters
    ----------
    folder
        Of the job.
    in_mics, in_movies
        What RELION gives; movies are refused.
    as_json
        Write records to stdout.
    fields
        Further fields of `DenoiseRequest`.

    Returns
    -------
    int
        0, or 3 when some micrographs failed; these are named and left out of the STAR file.
    """
    star = only_micrographs(in_mics, in_movies)
    request = DenoiseRequest(inputs=(star,), output=folder, star=folder / STAR_NAME, **fields)
    talk = Talk("denoise", total=len(discover(request.inputs)), as_json=as_json)
    with _ReadBack() as reader:

        def tell(result: FileResult) -> None:
            reader.read(result)
            talk.file(result)

        batch = denoise(request, tell, talk.note)
        talk.summary()
        if request.output_angpix is not None:
            talk.note(COARSER)
        _write_logfile(folder / LOGFILE, request, batch)
        if batch.exit_code not in ENDINGS_WITH_RESULT:
            raise InputError(f"{star}: no micrograph could be denoised; {folder / LOGFILE} and the lines above say why")
        reader.check(folder / STAR_NAME, batch)
    made = [nodes.Node(folder / STAR_NAME, nodes.MICROGRAPHS), nodes.Node(folder / LOGFILE, nodes.LOGFILE)]
    nodes.write_nodes(folder, made, release_of_job(folder))
    outputs_are_complete()
    return batch.exit_code


class _ReadBack:
    """Reads every new output again. For outputs of an earlier run, only the size is compared."""

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(_READERS)
        self._found: list[Future[str]] = []

    def __enter__(self) -> _ReadBack:
        """Return itself; its threads end with the block."""
        return self

    def __exit__(self, *exception: object) -> None:
        """Leave out what was not read yet."""
        self._pool.shutdown(cancel_futures=True)

    def read(self, result: FileResult) -> None:
        """Read a new micrograph, while the next ones are computed."""
        if result.status == "done" and result.output is not None:
            self._found.append(self._pool.submit(_problem_of, result.output))

    def check(self, star: Path, batch: BatchResult) -> None:
        """Compare the STAR file and its micrographs with the results of the job.

        Raises
        ------
        StorageError
            The disk holds something other than what was written.
        """
        named = {Path(split_section(name)[1]).absolute() for name in image_table(read_star(star)).names}
        made = {item.output.absolute() for item in batch.files if item.output is not None}
        problems = [text for one in self._found if (text := one.result())]
        problems += [f"{star}: does not name {path}" for path in sorted(made - named)]
        problems += [f"{star}: names {path}, which this job did not make" for path in sorted(named - made)]
        problems += [f"{path}: is not there" for path in sorted(named) if not path.is_file()]
        check_logfile(star.with_name(LOGFILE))
        if problems:
            more = f"; and {len(problems) - 3} more" if len(problems) > 3 else ""
            raise StorageError(f"reading back failed: {'; '.join(problems[:3])}{more}; check the disk")


def _problem_of(path: Path) -> str:
    """Read a denoised micrograph, and say what is wrong with it; empty if nothing is."""
    try:
        with open_micrograph(path) as source:
            bad = scan_pixels(source).nonfinite_count
    except (InputError, StorageError) as error:
        return str(error)
    return f"{path}: {bad} pixels are not finite" if bad else ""


def _write_logfile(path: Path, request: DenoiseRequest, batch: BatchResult) -> None:
    usable = [item for item in batch.files if item.output is not None]
    with Logfile(path) as pages:
        pages.text("cryoplug: denoised micrographs", _summary(request, batch))
        for item in _spread(usable, _PICTURES):
            assert item.output is not None
            try:
                section, name = split_section(str(item.input))
                raw, denoised = _view(Path(name), section), _view(item.output, None)
            except (InputError, StorageError) as error:
                pages.text("no picture", [str(error)])  # such as a raw file that is gone by now
                continue
            pages.before_after(str(item.input), raw, denoised, _remarks(item.output, raw, denoised))


def _view(path: Path, section: int | None) -> View:
    with open_micrograph(path, section=section) as source:
        return view(source)


def _summary(request: DenoiseRequest, batch: BatchResult) -> list[str]:
    counts = {status: sum(item.status == status for item in batch.files) for status in ("done", "skipped", "failed")}
    details = batch.details
    return [
        f"input       {request.inputs[0]}",
        f"output      {request.star}",
        f"checkpoint  {request.checkpoint}",
        f"            {details['model']}, sha256 {details['checkpoint_sha256'][:16]}, normalize {details['normalize']}",
        *(
            f"{name:<12}{details[name]}"
            for name in (
                "target",
                "angpix",
                "strength",
                "merge_highres",
                "highpass",
                "lowpass",
                "output_angpix",
                "device",
                "tta",
            )
            if details.get(name) is not None
        ),
        "",
        f"{len(batch.files)} micrographs: {counts['done']} denoised now, {counts['skipped']} by earlier runs, "
        f"{counts['failed']} failed",
        "Denoised micrographs are for looking and picking; extract particles from the raw ones.",
        *listed("", [COARSER] if request.output_angpix is not None else []),
        "",
        *listed("Failed, and left out of the STAR file:", [item.message for item in batch.failed]),
        *listed("Warnings:", [f"{item.input}: {item.message}" for item in batch.files if _is_warning(item)]),
    ]


def _is_warning(result: FileResult) -> bool:
    """Tell whether a micrograph is done, but with a remark."""
    return result.status == "done" and bool(result.message)


def _remarks(output: Path, raw: View, denoised: View) -> list[str]:
    size = denoised.pixel_size_angstrom
    return [
        f"denoised: {output.name}",
        "pixel size " + ("unknown" if size is None else f"{size:.4g} Å"),
        f"standard deviation of the middle: {raw.detail.std():.4g} raw,",
        f"{denoised.detail.std():.4g} denoised",
        "",
        "Every picture has its own grey scale: half a percent of",
        "the pixels are black, half a percent white.",
    ]


def _spread(items: Sequence[FileResult], count: int) -> list[FileResult]:
    if len(items) <= count:
        return list(items)
    return [items[round(index * (len(items) - 1) / (count - 1))] for index in range(count)]
