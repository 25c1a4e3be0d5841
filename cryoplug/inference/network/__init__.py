"""The network on its device: tiles, batches, orientations, precision and memory."""
