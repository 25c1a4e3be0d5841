"""The fault matrix: real faults, real processes of the command `cryoplug`, and what was lost: ``make faults``."""
