"""What to work on: from what the user named to micrographs, halves and pairs that are proven to belong together."""
