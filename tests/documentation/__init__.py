"""The commands that README and docs show, checked and run."""
