"""One row being tried: its folder, its processes, and what was found in order or lost."""

from __future__ import annotations

import os
import re
import shlex
import shutil
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path

from faults.bench import Bench
from faults.process import Finished, Running, Surroundings
from faults.soundness import digests, leftovers, unsound

_NO_WAIT_S = 20.0
"""A process that ends within this on a busy machine waited for nothing."""

Word = str | os.PathLike[str]


class Trial:
    """The helper that a row gets.

    Parameters
    ----------
    bench
        What the faults are tried on.
    folder
        An empty folder of its own, and the working folder of its processes. What is in ``in`` when the first process
        starts must be the same at the end; what is in ``out`` must be complete.
    """

    def __init__(self, bench: Bench, folder: Path) -> None:
        self.bench = bench
        self.folder = folder
        self.inputs = folder / "in"
        self.out = folder / "out"
        self.inputs.mkdir()
        self.command, self.seen = "", ""
        self.exit_code: int | None = None
        self.facts: list[str] = []
        self.problems: list[str] = []
        self._before: dict[str, str] | None = None
        self._count = 0
        self._cleanups: list[Callable[[], object]] = []
        self._running: list[Running] = []

    # -- what goes in ---------------------------------------------------------------------------------------------

    def add(self, *names: str) -> list[Path]:
        """Copy micrographs of the bench (all, when none is named) to ``in``."""
        wanted = names or tuple(path.name for path in sorted(self.bench.micrographs.glob("*.mrc")))
        return [Path(shutil.copy(self.bench.micrographs / name, self.inputs / name)) for name in wanted]

    def remember_inputs(self) -> None:
        """Take the inputs as they are now for what must be there at the end."""
        self._before = digests(self.inputs)

    def forget_inputs(self) -> None:
        """Compare no inputs: a device, or gigabytes of zeros."""
        self._before = {}

    def at_the_end(self, action: Callable[[], object]) -> None:
        """Have something undone when the row has been tried."""
        self._cleanups.append(action)

    # -- processes ------------------------------------------------------------------------------------------------

    def start(self, *words: Word, how: Surroundings | None = None) -> Running:
        """Start `cryoplug` in the folder of the row."""
        if self._before is None:
            self.remember_inputs()
        self._count += 1
        how = how or Surroundings()
        if how.folder is None:
            how = replace(how, folder=self.folder)
        running = Running(words, self.folder / f".log{self._count}", how, self.bench.warm)
        self._running.append(running)
        return running

    def run(self, *words: Word, code: int = 0, how: Surroundings | None = None) -> Finished:
        """Run a command that is not the row's own and must end with `code`."""
        done = self.start(*words, how=how).finish()
        if done.code != code:
            self.problems.append(
                f"afterwards {self._shown(done)} gave exit code {done.code}, not {code}: {done.line()}"
            )
        self._look_for_traceback(done)
        return done

    def fault(
        self,
        *words: Word,
        code: int | tuple[int, ...],
        says: str | tuple[str, ...] = (),
        how: Surroundings | None = None,
    ) -> Finished:
        """Run the command that meets the fault."""
        return self.judge(self.start(*words, how=how).finish(), code=code, says=says)

    def judge(self, done: Finished, *, code: int | tuple[int, ...], says: str | tuple[str, ...] = ()) -> Finished:
        """Show this command in the table; check its exit code and what it says (in one line, all of `says`)."""
        wanted = (says,) if isinstance(says, str) else says
        said = done.stderr.splitlines()[::-1] if wanted else []
        lines = [line for line in said if line.strip() and all(word in line for word in wanted)]
        if wanted and not lines:
            self.problems.append(f"does not say {' and '.join(map(repr, wanted))}")
        seen = lines[0] if lines else done.line() or "(nothing)"
        self.command, self.seen, self.exit_code = self._shown(done), self._clean(seen), done.code
        allowed = (code,) if isinstance(code, int) else code
        if done.code not in allowed:
            self.problems.append(f"exit code {done.code}, not {' or '.join(map(str, allowed))}")
        self._look_for_traceback(done)
        return done

    # -- what is left ---------------------------------------------------------------------------------------------

    def check(self, good: bool, kept: str, lost: str) -> None:
        """Note what is in order, or what is not."""
        (self.facts if good else self.problems).append(kept if good else lost)

    def same_results(self, names: Iterable[str], folder: Path | None = None) -> None:
        """Check that these denoised micrographs are, to the bit, those of the undisturbed run."""
        folder = folder or self.out
        found = digests(folder, "*.mrc")
        names = list(names)
        wrong = [name for name in names if found.get(name) != self.bench.reference.get(Path(name).name)]
        self.check(
            not wrong,
            f"{len(names)} of {len(names)} results bit-equal to an undisturbed run",
            f"not as undisturbed: {', '.join(wrong)}",
        )

    def only_results(self, names: Iterable[str]) -> None:
        """Check that exactly these micrographs stand in ``out``."""
        found, names = sorted(digests(self.out, "*.mrc")), sorted(names)
        self.check(
            found == names,
            f"{len(names)} results and no other",
            f"results {found or 'none'}, expected {names or 'none'}",
        )

    def same_files(self, folder: Path, reference: Path, pattern: str, what: str) -> None:
        """Check that two folders hold the same files, to the bit."""
        found, wanted = digests(folder, pattern), digests(reference, pattern)
        differing = sorted(name for name in {*found, *wanted} if found.get(name) != wanted.get(name))
        self.check(
            bool(wanted) and not differing, f"{what} bit-equal to an undisturbed run", f"{what} differ: {differing}"
        )

    def no_leftovers(self, folder: Path | None = None) -> None:
        """Check that nothing half-finished is left, hidden or not."""
        left = leftovers(folder or self.out)
        self.check(not left, "nothing half-finished left", f"left behind: {', '.join(left)}")

    def quick(self, done: Finished, good: Finished | None = None) -> None:
        """Check that a refusal took under a second and 100 MB more than looking at a good file (of the same kind)."""
        seconds = done.work_s - (good.work_s if good else self.bench.inspect_work_s)
        memory = done.peak_mb - (good.peak_mb if good else self.bench.inspect_mb)
        self.check(
            seconds < 1 and done.seconds < _NO_WAIT_S and memory < 100,
            "refused in under 1 s and 100 MB more than a good file takes",
            f"took {seconds:.1f} s of work and {memory:.0f} MB more than a good file, {done.seconds:.1f} s in all",
        )

    def close(self) -> None:
        """Check what holds for every row, and undo."""
        for running in self._running:
            if not running.ended:
                running.finish(0.0)
        for problem in unsound(self.out):
            self.problems.append(f"under its final name: {problem}")
        if self._before:
            self.check(digests(self.inputs) == self._before, "inputs unchanged", "inputs were changed")
        if digests(self.bench.root) != self.bench.all_digests:
            self.problems.append("files of the bench were changed")
        if not self.facts:
            self.problems.append("the row checked nothing")

    def undo(self) -> None:
        """Undo what the row set up."""
        for action in reversed(self._cleanups):
            action()

    def _look_for_traceback(self, done: Finished) -> None:
        if "Traceback" in done.stderr or "this is a bug" in done.stderr:
            self.problems.append(f"a traceback or bug: {done.line()}")

    def _shown(self, done: Finished) -> str:
        return self._clean(
            "cryoplug " + " ".join(shlex.quote(word) if "*" not in word else word for word in done.words)
        )

    def _clean(self, text: str) -> str:
        """Take out what differs from machine to machine and from day to day."""
        text = text.replace(f"{self.folder}/", "").replace(str(self.folder), ".")
        text = text.replace(f"{self.bench.root}/", "").replace(str(self.bench.root), ".")
        text = re.sub(r"^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d ", "", text)
        text = re.sub(r"(?<=: )\d+ (of \d+|%)(, [\d:]+ left)?: ", "", text)
        text = re.sub(r"process \d+ on [\w.-]+", "process N on HOST", text)
        return re.sub(r"\b\d+\.\d+ (s\b|samples/s|patches/s)", r"N \1", text)
