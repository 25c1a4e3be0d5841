"""The output folder: what is written where, how each file was made, and the lists that name the new files."""
