"""The names of the filters that a network must beat, in a file without numpy, because the help of a command needs them."""

BASELINES = ("identity", "affine", "gaussian", "wiener")
"""In order: the image unchanged; the best ``a*x + b``; the best Gaussian blur; one gain for each Fourier ring."""
