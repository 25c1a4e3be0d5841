"""Micrographs with a known truth."""
