"""cryo_cnn on the GPU as a few fused kernels: forward, and mean squared error with the gradients of all weights.

Hidden values are in half precision and all sums in float32: about the accuracy of TF32, at a fraction of its memory
traffic. Outside of the kernels, weights are float32. tests/kernels/test_fused.py has the tolerances.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from cryoplug.kernels import triton_cryo_cnn as kernels
from cryoplug.kernels.unfolding import CONSTANTS, PARTIAL_COUNT, border_flags, tables

SLOPE_SCALE = 32.0
"""Factor on differences from the clean image: with it, half precision keeps 10 bits down to 2e-6, and reaches 2000."""


@dataclass(frozen=True)
class Tiling:
    """How a kernel cuts the images."""

    pairs: int
    """Pairs of columns in each program."""
    rows: int
    """Rows in each program."""
    warps: int
    """Groups of 32 threads in each program."""
    stages: int = 2
    """Rows in progress at a time, if the compiler can do it."""


# Measured on an H100 with 8 images of 1024x1024: 0.22, 0.14 and 0.98 ms; see docs/benchmarks.md.
FORWARD_HIDDEN = Tiling(64, 64, 4)
FORWARD_OUTPUT = Tiling(64, 32, 2, 3)
BACKWARD = Tiling(64, 64, 4)


class FusedCryoCNN:
    """Buffers for images of one shape, and the kernels that use them.

    Parameters
    ----------
    parameters
        The six parameters of the network in order, float32 on the device; read again at each call.
    batch
        Most images at a time; a call may bring fewer.
    height, width
        Height and width of the images, each at least 1.
    tilings
        Tilings of the three kernels: to the second hidden layer, from there to the output, and backward. None takes those
        that were fastest.
    """

    def __init__(
        self,
        parameters: Sequence[torch.Tensor],
        *,
        batch: int,
        height: int,
        width: int,
        tilings: tuple[Tiling, Tiling, Tiling] | None = None,
    ) -> None:
        self._parameters = list(parameters)
        self.shape = (batch, height, width)
        self._batch = batch
        self._tilings = tilings = tilings or (FORWARD_HIDDEN, FORWARD_OUTPUT, BACKWARD)
        device = self._parameters[0].device
        columns = max(-(-width // (2 * tiling.pairs)) * 2 * tiling.pairs for tiling in tilings)
        rows = max(-(-height // tiling.rows) * tiling.rows for tiling in tilings)
        self._plane_rows, self._plane_width = rows + 4, columns + 16
        self._hidden_rows, self._hidden_width = rows + 2, columns + 2
        flags = torch.from_numpy(border_flags(width, columns)).flatten()
        self._flags_outside = flags.numel() // 2
        self._first = flags.numel()
        self._flags = flags.to(device=device, dtype=torch.float16)
        self._planes = self._new_planes()
        # Zeroed once: the kernels write inside the image alone, so the margins stay zero.
        self._hidden = torch.zeros(
            batch * self._hidden_rows * self._hidden_width * 16, dtype=torch.float16, device=device
        )
        index = tables()
        self._starts = index.starts
        self._unfold = torch.from_numpy(index.unfold).to(device)
        self._fold = torch.from_numpy(index.fold.ravel()).to(device)
        self._constants = torch.tensor(CONSTANTS, dtype=torch.float32, device=device)
        self._one = torch.ones(1, dtype=torch.float32, device=device)
        self._slopes = self._partials = self._sums = torch.empty(0, device=device)

    def fits(self, images: torch.Tensor) -> bool:
        """Say whether the buffers are for images ``(b, 1, y, x)`` of this shape."""
        return images.shape[0] <= self.shape[0] and tuple(images.shape[2:]) == self.shape[1:]

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Apply the network to ``(b, 1, y, x)``; returns float32, like the plain layers."""
        self._forward_hidden(images)
        output = torch.empty(images.shape, dtype=torch.float32, device=images.device)
        self._forward_output(output=output)
        return output

    def loss(self, noisy: torch.Tensor, clean: torch.Tensor) -> torch.Tensor:
        """Return the mean squared error, on the device."""
        return self._losses(noisy, clean)[0]

    def loss_and_gradients(self, noisy: torch.Tensor, clean: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the mean squared error, and its gradient by all parameters in one flat tensor, both on the device."""
        loss, last_bias = self._losses(noisy, clean)
        gradients = self._backward() * (2.0 / (SLOPE_SCALE * clean.numel()))
        return loss, torch.cat((gradients, 2.0 * last_bias[None]))

    def split(self, flat: torch.Tensor) -> list[torch.Tensor]:
        """Cut the flat gradient into one gradient for each parameter."""
        pieces = torch.split(flat, [parameter.numel() for parameter in self._parameters])
        return [piece.view(parameter.shape) for piece, parameter in zip(pieces, self._parameters, strict=True)]

    def _losses(self, noisy: torch.Tensor, clean: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Give the means of squared differences and of differences; their gradients stay in a buffer for `_backward`."""
        self._prepare_backward()
        self._forward_hidden(noisy)
        self._forward_output(clean=clean)
        return (self._sums[: self._grid(1)[0]].sum(0) / clean.numel()).unbind()

    def _new_planes(self) -> torch.Tensor:
        count = self.shape[0] * self._plane_rows * self._plane_width
        planes = torch.zeros(self._first + count, dtype=torch.float16, device=self._flags.device)
        planes[: self._first] = self._flags
        return planes

    def _prepare_backward(self) -> None:
        if self._slopes.numel() == 0:
            self._batch = self.shape[0]
            self._slopes = self._new_planes()
            device = self._slopes.device
            self._partials = torch.empty((self._grid(2)[0], PARTIAL_COUNT), device=device)
            self._sums = torch.empty((self._grid(1)[0], 2), device=device)

    def _grid(self, kernel: int) -> tuple[int, int, int]:
        """Give the number of programs: in all, in a row of the image, and in a column."""
        _, height, width = self.shape
        tiling = self._tilings[kernel]
        tiles, strips = -(-width // (2 * tiling.pairs)), -(-height // tiling.rows)
        return self._batch * tiles * strips, tiles, strips

    def _options(self, kernel: int) -> dict[str, int]:
        tiling = self._tilings[kernel]
        return {
            "PAIRS": tiling.pairs,
            "ROWS": tiling.rows,
            "num_warps": tiling.warps,
            "num_stages": tiling.stages,
        }

    def _pad(self, source: torch.Tensor, target: torch.Tensor, scale: torch.Tensor) -> None:
        _, height, width = self.shape
        block = 1024
        kernels.pad_planes[(-(-width // block), height, source.shape[0])](
            source.contiguous(), target, scale, height, width, self._plane_rows, self._plane_width, self._first,
            BLOCK=block,
        )  # fmt: skip

    def _forward_hidden(self, images: torch.Tensor) -> None:
        _, height, width = self.shape
        self._batch = images.shape[0]
        self._pad(images, self._planes, self._one)
        flat = torch.cat([*(parameter.detach().reshape(-1) for parameter in self._parameters), self._constants])
        self._unfolded = flat[self._unfold].half()
        programs, tiles, strips = self._grid(0)
        kernels.forward_hidden[(programs,)](
            self._planes, self._hidden, self._unfolded, self._parameters[3], height, width, tiles, strips,
            self._plane_rows, self._plane_width, self._first, self._flags_outside, self._hidden_rows,
            self._hidden_width, W1=self._starts["W1"], W2=self._starts["W2"], **self._options(0),
        )  # fmt: skip

    def _forward_output(self, *, output: torch.Tensor | None = None, clean: torch.Tensor | None = None) -> None:
        _, height, width = self.shape
        programs, tiles, strips = self._grid(1)
        unused = self._one
        kernels.forward_output[(programs,)](
            self._hidden, self._unfolded, self._parameters[5], unused if output is None else output,
            unused if clean is None else clean.contiguous(), self._slopes, self._sums,
            SLOPE_SCALE, height, width, tiles, strips, self._plane_rows, self._plane_width, self._first,
            self._hidden_rows, self._hidden_width, W3=self._starts["W3"], LOSS=clean is not None,
            OUTPUT=output is not None, **self._options(1),
        )  # fmt: skip

    def _backward(self) -> torch.Tensor:
        _, height, _ = self.shape
        programs, tiles, strips = self._grid(2)
        kernels.backward[(programs,)](
            self._planes, self._slopes, self._hidden, self._unfolded, self._partials, height, tiles, strips,
            self._plane_rows, self._plane_width, self._first, self._flags_outside, self._hidden_rows,
            self._hidden_width, W1P=self._starts["W1P"], W2T=self._starts["W2T"], W3E=self._starts["W3E"],
            **self._options(2),
        )  # fmt: skip
        return self._partials[:programs].sum(0)[self._fold].view(-1, 2).sum(1)
