"""The pairs that a network learns from: which, in which order, how turned and mixed, and how they get to the device."""
