"""Protection against what disks do: half-written files, other writers, passing errors, files with false lengths."""
