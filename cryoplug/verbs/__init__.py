"""The commands as Python functions: the same words, the same defaults, the same errors; ``import cryoplug`` offers them."""
