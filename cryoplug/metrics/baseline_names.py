"""The names of the filters that a network must beat: apart, because the help of a command names them and may load no numpy."""

BASELINES = ("identity", "affine", "gaussian", "wiener")
"""Nothing; the best ``a*x + b``; the best Gaussian blur; one gain for each Fourier ring."""
