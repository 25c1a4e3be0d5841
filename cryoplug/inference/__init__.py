"""Inference: a checkpoint applied to micrographs in bounded memory."""
