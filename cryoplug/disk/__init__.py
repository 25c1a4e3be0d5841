"""What a disk may do to us: a half-written file, another writer, a moment of refusal, a file that lies."""
