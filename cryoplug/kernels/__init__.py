"""Make the networks fast: bands of rows on a CPU, fused kernels on a GPU, and the choice between them."""
