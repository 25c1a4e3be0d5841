"""Packed training pairs: one interface and one manifest; the pixels are in raw bins or HDF5."""
