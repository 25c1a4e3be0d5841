"""The smallest plugin for cryoplug: one command, one model, one format."""
