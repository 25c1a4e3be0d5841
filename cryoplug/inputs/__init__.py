"""The inputs: from the names that the user gave to micrographs, halves, and pairs that are proven to belong together."""
