"""Training: configuration, loader, loop, run folder."""
