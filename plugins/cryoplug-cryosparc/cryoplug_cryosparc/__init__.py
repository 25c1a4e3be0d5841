"""cryoplug as an External job of cryoSPARC 4.7 and 5: ``cryoplug cryosparc denoise``."""
