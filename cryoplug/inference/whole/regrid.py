"""Change the pixel size of a whole image on the device, as `cryoplug.core.fourier_crop` does on the host.

The rules are the same: each axis is cut or padded by itself, and the two waves of an even grid's Nyquist frequency are one.
Transforms are in float32, because a consumer card computes float64 at a 64th of the speed. The mean is subtracted first:
dose-weighted micrographs may have a mean of 7000 and a deviation of 9, and rounding such a mean would drown the waves.
"""

from __future__ import annotations

import torch

from cryoplug.core.fourier_filter import continuation, gaussian_transfer
from cryoplug.inference.regrid import GridPlan
from cryoplug.inference.resampling import resample_axis


def resample_image(pixels: torch.Tensor, shape: tuple[int, int]) -> torch.Tensor:
    """Bring an image ``(y, x)``, float32, to another grid.

    Returns
    -------
    torch.Tensor
        Contiguous, of `shape`; `pixels` itself if it has that shape.
    """
    if tuple(pixels.shape) == shape:
        return pixels
    mean = pixels.mean()
    along_x = resample_axis(pixels - mean, shape[1], axis=1)
    # cuFFT may give an axis back in another order of memory.
    return resample_axis(along_x, shape[0], axis=0).add_(mean).contiguous()


def finish(denoised: torch.Tensor, raw: torch.Tensor | None, plan: GridPlan) -> torch.Tensor:
    """Bring the network's output to the grid of the result; mix in raw pixels and filter, if asked.

    Parameters
    ----------
    denoised
        Grey values on ``plan.network_shape``, float32; it may be changed.
    raw
        The micrograph, float32, not changed; may be None unless ``plan.regrid.needs_raw``.
    plan
        The two grids.
    """
    regrid = plan.regrid
    if regrid.needs_raw:
        denoised = _mixed(denoised, raw, plan)
    result = resample_image(denoised, plan.written_shape)
    if not regrid.filters:
        return result
    assert plan.written_angstrom is not None
    return filtered_image(
        result,
        pixel_size_angstrom=plan.written_angstrom,
        highpass=regrid.highpass_angstrom,
        lowpass_angstrom=regrid.lowpass_angstrom,
    )


def filtered_image(
    pixels: torch.Tensor, *, pixel_size_angstrom: float, highpass: float | None, lowpass_angstrom: float | None
) -> torch.Tensor:
    """Filter like `cryoplug.core.fourier_filter.filtered_image`, to the rounding of float32."""
    mean = pixels.mean(dtype=torch.float64).float()
    result = pixels - mean
    if highpass is not None:
        result = result - _lowpass(result, highpass / pixel_size_angstrom)
    if lowpass_angstrom is not None:
        result = _lowpass(result, lowpass_angstrom / pixel_size_angstrom)
    return result.add_(mean - result.mean(dtype=torch.float64).float()).contiguous()


def _lowpass(pixels: torch.Tensor, resolution_px: float) -> torch.Tensor:
    for axis in (1, 0):
        size = int(pixels.shape[axis])
        places, width = continuation(size, resolution_px)
        along = pixels.index_select(axis, torch.from_numpy(places).to(pixels.device))
        terms = torch.fft.rfft(along, dim=axis)
        transfer = torch.from_numpy(gaussian_transfer(len(places), resolution_px)).float().to(pixels.device)
        terms.mul_(transfer if axis else transfer[:, None])
        pixels = torch.fft.irfft(terms, n=len(places), dim=axis).narrow(axis, width, size)
    return pixels


def _mixed(denoised: torch.Tensor, raw: torch.Tensor | None, plan: GridPlan) -> torch.Tensor:
    """Mix raw pixels into the result, on the micrograph's grid."""
    merge, strength = plan.regrid.merge_highres_angstrom, plan.regrid.strength
    result = resample_image(denoised, plan.shape)
    if merge is not None:
        assert raw is not None and plan.pixel_size_angstrom is not None
        result = merge_high_resolution(
            result, raw, pixel_size_angstrom=plan.pixel_size_angstrom, resolution_angstrom=merge
        )
    if strength != 1.0:
        assert raw is not None
        result = result.mul_(strength).add_(raw * (1.0 - strength))
    return result


def merge_high_resolution(
    denoised: torch.Tensor, raw: torch.Tensor, *, pixel_size_angstrom: float, resolution_angstrom: float
) -> torch.Tensor:
    """Combine two images: Fourier terms finer than a resolution from `raw`, the others from `denoised`.

    Parameters
    ----------
    denoised, raw
        ``(y, x)``, float32, equal shape, the same grey scale.
    pixel_size_angstrom
        Sampling of both.
    resolution_angstrom
        See `cryoplug.core.fourier_crop.merge_high_resolution`.
    """
    height, width = raw.shape
    # float64, so that a term on the border goes to the side where numpy puts it.
    exact = {"dtype": torch.float64, "device": raw.device}
    y = torch.fft.fftfreq(height, pixel_size_angstrom, **exact)[:, None]
    x = torch.fft.rfftfreq(width, pixel_size_angstrom, **exact)[None, :]
    terms = torch.fft.rfft2(raw - denoised)
    terms.masked_fill_(y * y + x * x <= 1.0 / resolution_angstrom**2, 0.0)
    return torch.fft.irfft2(terms, s=(height, width)).add_(denoised)
