"""The training pairs: which ones, in which order, how they are turned and mixed, and how they reach the device."""
