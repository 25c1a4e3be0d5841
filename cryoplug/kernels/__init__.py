"""How the networks are run fast: memory, bands of rows, fused kernels."""
