"""Devices and memory that are not there."""

from __future__ import annotations

import resource

from faults.process import Surroundings
from faults.signals import RESULTS, denoise_words, train_words, weights_as_undisturbed
from faults.table import fault
from faults.trial import Trial


@fault
def no_gpu_denoise(trial: Trial) -> None:
    """Denoise is asked for a GPU that is not there."""
    trial.add("mic_0001.mrc")
    trial.fault(*denoise_words(trial, "--device", "cuda"), code=7, says=("cuda", "no GPU"))
    trial.only_results([])


@fault
def no_such_gpu(trial: Trial) -> None:
    """Denoise is asked for GPU number 63."""
    trial.add("mic_0001.mrc")
    how = Surroundings({"CUDA_VISIBLE_DEVICES": None})
    trial.fault(*denoise_words(trial, "--gpu", "63"), code=7, says="cuda:63", how=how)
    trial.only_results([])


@fault
def no_gpu_train(trial: Trial) -> None:
    """Train is asked for a GPU that is not there."""
    trial.fault(*train_words(trial), "--device", "cuda", code=7, says="cuda")
    kept = list(trial.out.rglob("epoch_*"))
    trial.check(not kept, "no silent run on the CPU", f"trained all the same: {kept}")


@fault
def device_without_meaning(trial: Trial) -> None:
    """A device that does not exist."""
    trial.add("mic_0001.mrc")
    trial.fault(*denoise_words(trial, "--device", "tpu"), code=2, says=("tpu", "allowed"))
    trial.only_results([])


@fault
def memory_too_small(trial: Trial) -> None:
    """--max-memory is less than the least that is needed."""
    trial.add("mic_0001.mrc")
    trial.fault(*denoise_words(trial, "--max-memory", "10MB"), code=2, says=("--max-memory", "the least"))
    trial.only_results([])


@fault
def memory_small(trial: Trial) -> None:
    """--max-memory of 700 MB: kept, and the same pixels to the rounding of float32."""
    import numpy as np

    trial.add()
    done = trial.fault(*denoise_words(trial, "--max-memory", "700MB"), code=0)
    trial.check(done.peak_mb < 700, f"it took under {700} MB", f"took {done.peak_mb:.0f} MB")
    worst = 0.0
    for name in RESULTS:
        one, two = (
            np.frombuffer((folder / name).read_bytes()[1024:], "<f4") for folder in (trial.out, trial.bench.denoised)
        )
        worst = max(worst, float(np.abs(one - two).max() / two.std()))
    trial.check(worst < 1e-5, "pixels as undisturbed", f"pixels differ by {worst:.2g} contrasts")


@fault
def address_space(trial: Trial) -> None:
    """The system gives no memory (ulimit -v 600 MB)."""
    trial.add()
    limit = Surroundings(before=lambda: resource.setrlimit(resource.RLIMIT_AS, (600 << 20, 600 << 20)))
    trial.fault(*denoise_words(trial), code=7, says="memory", how=limit)
    trial.only_results([])
    trial.run(*denoise_words(trial))
    trial.same_results(RESULTS)


@fault
def one_thread(trial: Trial) -> None:
    """One thread (OMP_NUM_THREADS=1, --threads 1): the same bits."""
    trial.add()
    how = Surroundings({"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"})
    trial.fault(*denoise_words(trial, "--threads", "1"), code=0, how=how)
    trial.same_results(RESULTS)


@fault
def one_thread_train(trial: Trial) -> None:
    """Training is interrupted and goes on with one thread: the same bits."""
    import signal

    from faults.signals import an_epoch_is_kept, interrupted

    words = train_words(trial)
    done = interrupted(trial, words, signal.SIGTERM, an_epoch_is_kept(trial, 1))
    trial.judge(done, code=143)
    trial.run(*words, "--threads", "1")
    weights_as_undisturbed(trial)
