"""cryoplug as an External job of RELION: ``cryoplug relion denoise|train|convert --o External/jobNNN/ ...``."""
