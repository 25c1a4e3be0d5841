"""Simulation: micrographs with a known truth."""
