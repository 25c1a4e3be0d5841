"""Packed training pairs: one interface, raw bins or HDF5 behind it, one manifest."""
