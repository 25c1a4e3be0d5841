"""Values and geometry: numpy only, no torch, no files."""
