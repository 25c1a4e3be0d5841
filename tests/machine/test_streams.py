"""Work on streams of its own is done before anyone uses its result; on the CPU nothing of it exists."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from cryoplug.machine.streams import Streams


def made_beside(device: torch.device, count: int = 6) -> list[float]:
    """Compute on several threads' own streams, go on on this thread's, and copy back beside it."""
    streams = Streams(device)

    def prepare(number: int) -> tuple[torch.Tensor, object]:
        with streams.own():
            pixels = torch.full((512, 512), float(number), device=device)
            for _ in range(20):
                pixels = pixels @ torch.eye(512, device=device)
            return pixels, streams.reached()

    found = []
    with ThreadPoolExecutor(3) as pool:
        for pixels, queued in pool.map(prepare, range(count)):
            queued.hand_over(pixels, None)  # type: ignore[attr-defined]
            result = pixels + 1
            host = torch.empty(result.shape, pin_memory=device.type == "cuda")
            with streams.back(result):
                host.copy_(result, non_blocking=True)
                done = streams.reached()
            del pixels, result
            done.wait()
            found.append(float(host.mean()))
    return found


def test_on_the_cpu_all_is_done_at_once() -> None:
    assert made_beside(torch.device("cpu"), 2) == [1, 2]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU here")
def test_on_a_gpu_nothing_is_used_before_it_is_there() -> None:
    assert made_beside(torch.device("cuda")) == [1, 2, 3, 4, 5, 6]
