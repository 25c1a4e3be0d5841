"""The output folder: where each file goes, how it was made, and the lists that name the new files."""
