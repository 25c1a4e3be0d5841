"""File formats: lenient readers, strict writers, and validators that list everything that is wrong."""
