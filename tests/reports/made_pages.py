"""Pages of sections made of made-up numbers, for the tests of content and for those in a browser."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from cryoplug.core.results import Finding
from cryoplug.metrics.evaluation import score_against_truth, score_halves, score_noise
from cryoplug.reports.evaluation import Summary, summarize
from cryoplug.reports.evaluation_page import JudgedRow, evaluation_page
from cryoplug.reports.evaluation_record import FIELD, evaluation_record, mean_curves
from cryoplug.reports.inspect_page import InspectedRow, inspect_page
from cryoplug.reports.store_page import StoreEntry, store_sections
from cryoplug.reports.training_page import RESPONSE_FIELD, Example, training_page
from cryoplug.reports.words import verdict_words

FOLDER = "/data/facility/2026-11-29/session_of_a_long_night/MotionCorr/job002/"
NAME = "<b>\"x'.mrc"
RNG = np.random.default_rng(4)
TRUTH = np.cumsum(np.cumsum(RNG.normal(size=(96, 96)), 0), 1)
TRUTH = ((TRUTH - TRUTH.mean()) / TRUTH.std()).astype(np.float32)


def noisy() -> np.ndarray:
    return (TRUTH + RNG.normal(size=TRUTH.shape)).astype(np.float32)


def blur(image: np.ndarray) -> np.ndarray:
    spread = [np.roll(image, shift, axis) for axis in (0, 1) for shift in (-1, 0, 1)]
    return np.mean(spread, axis=0, dtype=np.float32)


def summary() -> tuple[Summary, list, list]:
    truth, halves, noise = [], [], []
    for _ in range(3):
        even, odd = noisy(), noisy()
        truth.append(score_against_truth(even, TRUTH, blur(even)))
        halves.append(score_halves((even, odd), (blur(even), blur(odd)), ("even", "odd")))
        noise.append(score_noise(even, TRUTH, blur(even), blur, other_is_truth=True)[0])
    return summarize(truth, halves, hallucination=noise, micrographs=3), truth, halves


def made_pages() -> dict[str, str]:
    """Give a page of each kind."""
    found, truth, halves = summary()
    raw = noisy()
    words = verdict_words(found.verdict)
    rows = [
        JudgedRow(NAME, "done", "a remark", truth[0], halves[0], 1.5),
        JudgedRow("b.mrc", "failed", "b.mrc: no pixels"),
    ]
    pictures = {
        "raw": raw,
        "denoised": blur(raw),
        "Gaussian, 1.0 px": blur(blur(raw)),
        "truth": TRUTH,
        "denoised noise": blur(raw - TRUTH),
    }
    response = {"frequency": [0.1, 0.2, 0.3], "gain": [0.9, 0.5, None]}
    curves = {**mean_curves(truth, halves), RESPONSE_FIELD: response}
    records = [
        {"epoch": epoch, "train_loss": 1.0 / epoch, "val_loss": 1.1 / epoch, "samples_per_s": 10.0, "seconds": 5.0}
        for epoch in (1, 2, 3)
    ]
    entries = [
        StoreEntry(f"mic{index}.mrc", "train", 4, 10.0 + index / 100, 2.0, 1.5, 0.0, 1.0, picture=raw)
        for index in range(30)
    ]
    entries.append(StoreEntry(NAME, "test", 4, 40.0, 2.0, 1.5, 0.0, 1.0, picture=raw))
    inspected = [
        InspectedRow("good.mrc", "micrograph", (), (96, 96), 1.5, 10.0, 2.0),
        InspectedRow(NAME, "micrograph", (Finding("error", "mode", f"3 in {NAME}"), Finding("note", "cella", "odd"))),
    ]
    nested = [
        InspectedRow(f"{FOLDER}{name}", "micrograph", (Finding("warning", "cella", f"{'very ' * 40}odd"),))
        for name in (f"grid1/{'long_' * 30}name.mrc", f"grid2/{NAME}")
    ]
    return {
        "nested": inspect_page(nested),
        "evaluation": evaluation_page(Path(NAME), words, found, rows, pictures, about=[("model", NAME)]),
        "training": training_page(
            Path(NAME),
            records,
            {FIELD: evaluation_record(found, curves), "pairs": "halves"},
            words,
            about=[("network", NAME)],
            examples=[Example(raw, noisy(), blur(raw))],
            best_epoch=3,
            pixel_size_angstrom=2.6,
        ),
        "inspection": inspect_page(inspected, store_sections(entries)),
    }
