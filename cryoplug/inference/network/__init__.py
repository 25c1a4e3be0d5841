"""The network on its device: tiles, batches, orientations, precision, and the memory that they take."""
