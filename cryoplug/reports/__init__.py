"""Figures of micrographs and of training runs."""
