"""Tests of examples/facility."""
