"""Fuzzing of everything that parses a file: ``python -m fuzz [--seconds N] [TARGET ...]``, or ``make fuzz``.

A target fails when an input makes it raise anything but a `CryoplugError`, take more than a second, or more than 100 MB.
"""
