"""File formats: lenient readers, strict writers, validators that list everything."""
