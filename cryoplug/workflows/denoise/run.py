"""One run of denoise: plan the work, do it here or in several processes, and write the lists and the page."""

from __future__ import annotations

import contextlib
import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from cryoplug.core.outlook import Expect, Outlook
from cryoplug.core.results import BatchResult, FileResult
from cryoplug.core.shard import Shard
from cryoplug.disk.claims import Claims
from cryoplug.errors import InputError, Stopped, StorageError
from cryoplug.inference.delivery import Delivery
from cryoplug.inference.messages import DenoiseJob
from cryoplug.inference.pipeline import run_pipeline
from cryoplug.inputs.companions import left_out_note
from cryoplug.machine.early_context import begin_context
from cryoplug.machine.interrupts import Interrupts
from cryoplug.models.checkpoint import Checkpoint
from cryoplug.outputs.cs_file import OutputDataset, source_dataset
from cryoplug.outputs.journal import Journal
from cryoplug.outputs.planning import PlannedOutput, check_writable
from cryoplug.outputs.star_file import OutputStar
from cryoplug.reports.html import counted
from cryoplug.workflows.denoise.finding import find_micrographs
from cryoplug.workflows.denoise.gpus import Denoise, denoise_in_processes
from cryoplug.workflows.denoise.halves import pair_prover
from cryoplug.workflows.denoise.page import RunPage
from cryoplug.workflows.denoise.previews import Previews
from cryoplug.workflows.denoise.processes import requests_for
from cryoplug.workflows.denoise.request import DenoiseRequest
from cryoplug.workflows.denoise.shards import ShardRecord, ShardResult, journal_name
from cryoplug.workflows.denoise.targets import plan_part, planner_of
from cryoplug.workflows.denoise.watch import Watch, WatchResult
from cryoplug.workflows.denoise.work import SIBLING_POLL_S, Note, Progress, Sibling, Work, shared_jobs


def output_star(request: DenoiseRequest, note: Note, *, only_look: bool = False) -> OutputStar | None:
    """Begin the STAR file of a request; None if it asks for none. `only_look`: keep the remains of an interrupted run."""
    if request.star is None:
        return None
    return OutputStar(
        request.star,
        folder=request.output,
        inputs=request.inputs,
        overwrite=request.overwrite,
        voltage_kv=request.voltage_kv,
        spherical_aberration_mm=request.spherical_aberration_mm,
        pixel_size_angstrom=request.pixel_size,
        resampled=request.output_angpix is not None,
        only_look=only_look,
        note=note,
    )


@dataclass
class DenoiseRun:
    """A run whose checkpoint is loaded; call `batch`, `shard` or `watch` to start it.

    `progress`, `note`, `sibling` and `expect` are those of `cryoplug.workflows.denoise.workflow.denoise`.
    """

    request: DenoiseRequest
    checkpoint: Checkpoint
    star: OutputStar | None
    interrupts: Interrupts
    claims: Claims
    progress: Progress
    note: Note
    sibling: Sibling | None
    expect: Expect
    denoise: Denoise
    """The workflow; with several GPUs, the process of each GPU calls it."""
    merges: bool = False
    """Whether this run joins the results of shards."""
    starts_processes: bool = False
    """Whether it may start more than one process on a GPU, if the request does not say how many."""

    def __post_init__(self) -> None:
        request, checkpoint = self.request, self.checkpoint
        self._gave_up = False
        self.regrid = request.regrid(checkpoint)
        self.settings = request.identity(checkpoint)
        self.details: dict[str, Any] = {
            "model": checkpoint.model_id,
            "checkpoint_sha256": checkpoint.sha256,
            "normalize": self.settings["normalize"],
            "target": self.settings["target"],
            "dtype": request.dtype,
        }
        if not self.regrid.does_nothing:
            self.details |= {
                "angpix": self.regrid.angpix,
                "strength": self.regrid.strength,
                "merge_highres": self.regrid.merge_highres_angstrom,
                "highpass": self.regrid.highpass_angstrom,
                "lowpass": self.regrid.lowpass_angstrom,
                "output_angpix": self.regrid.output_angstrom,
            }
        self.previews = Previews(
            request.output,
            wanted=request.previews,
            halves=request.halves,
            stated_angstrom=request.pixel_size,
            target=str(self.settings["target"] or "image"),
        )
        # Of several processes, the one that began them writes the page of all.
        page = request.page if self.sibling is None and request.shard is None else None
        name = "the general model" if checkpoint.is_general else str(checkpoint.path)
        self.page = (
            None if page is None else RunPage(page, request.output, self.previews, self.details, checkpoint=name)
        )
        self.planner = planner_of(request)
        self.journal = Journal(request.output / journal_name(request.shard), self.details)
        self.work = Work(
            self.settings,
            overwrite=request.overwrite and not self.merges,
            claims=self.claims,
            journal=self.journal,
            progress=self.progress,
            before=None if self.sibling is None else self.sibling.before,
            stated_angstrom=request.pixel_size,
            previews=self.previews,
            taken=self._take,
        )

    def shard(self, shard: Shard) -> BatchResult:
        """Denoise one shard of a list, and leave a record for `merge`."""
        check_writable(self.request.output)
        record = ShardRecord(shard, self.request, str(Path.cwd()), self.checkpoint.sha256, finished=False)
        record.write()
        batch = self.batch()
        replace(record, finished=True, failed=batch.failed).write()
        self.note(
            f"shard {shard}: {counted(len(batch.files), 'micrograph')}; when all are done: "
            f"{shlex.join(['cryoplug', 'merge', str(self.request.output)])}"
        )
        return ShardResult(batch.files, batch.outputs, batch.details)

    def batch(self, failed: Mapping[Path, FileResult] | None = None) -> BatchResult:
        """Denoise the micrographs that are there. A merge denoises nothing; `failed` holds the failures of its shards."""
        request = self.request
        micrographs, companions = find_micrographs(request)
        self._leave_out(companions)
        planned = plan_part(request, micrographs, self.planner, self.star)
        self.expect(Outlook(len(planned)))
        alone = self.sibling is None and request.shard is None
        source = source_dataset(micrographs) if alone else None
        dataset = OutputDataset(request.output, source, overwrite=request.overwrite) if source is not None else None
        todo = [item for item in planned if not self.should_stop() and self.work.is_to_do(item)]
        if failed is not None:
            todo = self._not_failed(todo, failed)
        if todo or self.should_stop():
            check_writable(request.output)
            requests = [request] if self.sibling else requests_for(request, len(todo), by_itself=self.starts_processes)
            if len(requests) > 1:
                complete = self._compute_in_processes(todo, requests)
            elif self.sibling:
                mine = self.sibling.in_order(todo)
                jobs = shared_jobs(self.work, mine, self.should_stop, lambda text: None, poll_s=SIBLING_POLL_S)
                complete = self._compute(jobs)
            else:
                complete = self._compute(shared_jobs(self.work, todo, self.should_stop, self.note))
            if not complete:
                raise self._stopped(len(planned))
        self._remark_on_pixel_sizes()
        files = tuple(self.work.results[item.target] for item in planned)
        self._write_pictures(planned)
        outputs = self._write_star(planned, last=True)
        if dataset is not None and dataset.write(self._done(planned)):
            outputs += (dataset.path,)
        return BatchResult(files, outputs, self.details)

    def _not_failed(self, todo: Sequence[PlannedOutput], failed: Mapping[Path, FileResult]) -> list[PlannedOutput]:
        """Take over the failures of the shards; afterwards no micrograph may be left to do."""
        left = [item for item in todo if item.shown not in failed]
        if left:
            raise InputError(
                f"{self.request.output}: {len(left)} of {len(self.work.results) + len(todo)} micrographs are not denoised, first "
                f"{left[0].shown}: they were added or changed later; run all shards again, then merge"
            )
        for item in todo:
            self.work.take_over(item, failed[item.shown])
        return []

    def watch(self) -> WatchResult:
        """Denoise the micrographs that are there and those that arrive later."""
        check_writable(self.request.output)
        watch = Watch(
            self.request,
            self.work,
            self.planner,
            self.note,
            after_look=lambda: self._after_look(watch),
        )
        complete = self._compute(watch.jobs(self.should_stop))
        if complete:
            watch.give_up_waiting()
        self._leave_out(watch.companions)
        self._remark_on_pixel_sizes()
        if complete:
            self._write_pictures(watch.planned)
        outputs = self._write_star(watch.planned, last=True)
        if not complete:
            raise self._stopped(len(watch.planned))
        return WatchResult(tuple(self.work.results.values()), outputs, self.details)

    def _leave_out(self, companions: Sequence[Path]) -> None:
        """Count the files that only accompany micrographs, and report that they are left out."""
        self.details["companions"] = len(companions)
        if companions and self.sibling is None:  # of several processes, the one that waits for them has said it
            self.note(left_out_note(companions))

    def _after_look(self, watch: Watch) -> None:
        self.expect(Outlook(len(watch.planned), watch.waiting_for()))
        self._write_star(watch.planned, last=False)
        if self.page is not None:
            self.page.show_live(watch.waiting)

    def _write_pictures(self, planned: Sequence[PlannedOutput]) -> None:
        """Make the previews that earlier runs did not make, and write the page."""
        if self.sibling is not None:
            return
        if self.request.previews:
            skipped = [item for item in self._done(planned) if self.work.results[item.target].status == "skipped"]
            missing = [item for item in skipped if not self.previews.is_there(item)]
            if missing:
                before = counted(len(missing), "finished micrograph")
                self.note(f"the previews of {before} are missing; making them")
            for item in missing:
                if self.should_stop():
                    return
                if remark := self.previews.make(item):
                    self.note(f"{item.shown}: {remark}")
        if self.page is not None:
            self.details["report"] = self.page.finish(planned, self.work.results)

    def _take(self, target: Path, result: FileResult) -> None:
        if self.star is not None:
            self.star.renew(target)
        if self.page is not None and self.request.watch:
            self.page.take(target, result)

    def should_stop(self) -> bool:
        """Tell whether a signal or an error ends the run; SIGUSR1 only gets an answer."""
        if self.interrupts.save_requested:
            self.interrupts.save_requested = False
            self.note(f"SIGUSR1: {self._finished()} finished micrographs are on the disk already; going on")
        return self._gave_up or self.interrupts.stop_signal is not None

    def _compute(self, jobs: Iterable[DenoiseJob]) -> bool:
        request = self.request
        begin_context(request.device_name)
        from cryoplug.inference.denoiser import Denoiser

        denoiser = Denoiser(self.checkpoint, request.settings, note=self.note)
        how = {"device": str(denoiser.device), "precision": denoiser.network.precision, "tta": denoiser.tta}
        self.details |= how
        self.journal.add_fields(**how)
        label = request.label(
            self.checkpoint,
            precision=denoiser.network.precision,
            tta=denoiser.tta,
            dtype=request.dtype,
            halves=request.halves,
        )
        if request.max_memory_bytes is not None and (not self.regrid.does_nothing or request.float16):
            self.note(
                "--max-memory does not count micrographs that are held in memory for --angpix, --strength, --merge-highres, "
                "--highpass, --lowpass, --output-angpix and --float16"
            )
        delivery = Delivery(
            finish=self.work.finish,
            label=label,
            dtype=request.dtype,
            begin=self.work.begin,
            look=self.work.look if request.previews else None,
            should_stop=self.should_stop,
            gave_up=self._give_up,
        )
        if request.halves:
            from cryoplug.inference.halves import run_halves

            return run_halves(jobs, denoiser, delivery, prove=pair_prover())
        return run_pipeline(jobs, denoiser, delivery, processes=self.sibling.count if self.sibling else 1)

    def _remark_on_pixel_sizes(self) -> None:
        # Of several processes, the one that waits for them says it for all.
        for text in self.work.pixel_sizes.sentences() if self.sibling is None else ():
            self.note(text)

    def _give_up(self) -> None:
        self._gave_up = True

    def _compute_in_processes(self, todo: Sequence[PlannedOutput], requests: Sequence[DenoiseRequest]) -> bool:
        by_name = {item.shown: item for item in todo}

        def report(result: FileResult) -> None:
            # What was finished before is no news from them.
            if result.input in by_name:
                self.work.take_over(by_name[result.input], result)

        names = dict.fromkeys(request.device_name for request in requests)
        self.details["device"] = ", ".join("cuda:0" if name in ("auto", "cuda") else name for name in names)
        return denoise_in_processes(
            self.denoise,
            requests,
            self.work.before,
            report=report,
            note=self.note,
            should_stop=self.should_stop,
            details=self.details,
        )

    def _write_star(self, planned: Sequence[PlannedOutput], *, last: bool) -> tuple[Any, ...]:
        """Write the STAR file of finished micrographs; if a source cannot be read now, try again a few times."""
        if self.star is None or self.request.shard is not None:
            return ()
        results, done = self.work.results, self._done(planned)
        self.details["left_out"] = [str(item.input) for item in results.values() if item.status == "failed"]
        with contextlib.nullcontext() if last else contextlib.suppress(InputError, StorageError):
            self.star.write(done)
        return (self.star.path,) if done else ()

    def _done(self, planned: Sequence[PlannedOutput]) -> list[PlannedOutput]:
        results = self.work.results
        return [item for item in planned if item.target in results and results[item.target].status != "failed"]

    def _finished(self) -> int:
        return sum(result.status != "failed" for result in list(self.work.results.values()))

    def _stopped(self, count: int) -> Stopped:
        number = self.interrupts.stop_signal
        assert number is not None
        return Stopped(
            number,
            f"{self._finished()} of {count} micrographs are finished in {self.request.output}; the same command goes on",
        )
