"""cryoplug on a Slurm cluster."""
