"""The columns of an evaluation: figure, heading, digits, and meaning."""

from __future__ import annotations

TRUTH_COLUMNS = (
    ("snr_db", "SNR dB", "{:.2f}"),
    ("correlation", "correlation", "{:.4f}"),
    ("mse", "MSE", "{:.4g}"),
    ("psnr_db", "PSNR dB", "{:.2f}"),
    ("ssim", "SSIM", "{:.4f}"),
    ("frc_05", "FRC 0.5", "{:.4f}"),
    ("frc_0143", "FRC 0.143", "{:.4f}"),
)
HALVES_COLUMNS = (
    ("error", "error B+N", "{:.4g}"),
    ("bias", "bias B", "{:.4g}"),
    ("noise_left", "noise N", "{:.4g}"),
    ("snr_fitted_db", "SNR dB", "{:.2f}"),
    ("psnr_db", "PSNR dB", "{:.2f}"),
    ("correlation", "corr(De, Ro)", "{:.5f}"),
    ("correlation_multiple", "x raw", "{:.3f}"),
    ("residual_correlation", "corr(Re-De, Ro)", "{:.5f}"),
)
ROWS = (
    "identity is the raw micrograph as it is, affine the same after the best a*x + b, gaussian after the best Gaussian blur, "
    "wiener after the best gain for each frequency. These filters were chosen with knowledge of the judge."
)
"""What the rows beside the denoiser's are."""
HINTS = {
    "snr_db": "Signal-to-noise ratio in decibels, after the best a*x + b. Higher is better; 3 dB more is half the error.",
    "correlation": "Correlation with the judge; with a truth 1 is perfect, with the other half its noise keeps it lower. "
    "Higher is better.",
    "mse": "Mean squared difference to the truth. Lower is better.",
    "psnr_db": "Range of the signal over the error, in decibels. Higher is better; compare it only within one table.",
    "ssim": "Structural similarity with the truth, 1 is equal. Higher is better.",
    "frc_05": "Frequency in cycles per pixel up to which the Fourier ring correlation stays above 0.5. Higher is finer detail.",
    "frc_0143": "The same for 0.143.",
    "error": "Estimated squared error to the unknown truth: bias and noise together. Lower is better.",
    "bias": "The part of it that comes from signal that was changed or removed.",
    "noise_left": "The part of it that is noise which was left in.",
    "snr_fitted_db": "Signal-to-noise ratio in decibels, after the best a*x + b, estimated without truth. Higher is better.",
    "correlation_multiple": "That correlation as a multiple of the raw micrograph's. Above 1 is better than raw.",
    "residual_correlation": "Correlation of what was removed with the other half. At 0 noise alone was removed; above 0 "
    "signal was, too.",
}
