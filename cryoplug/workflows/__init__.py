"""One folder for each command: each takes a request record and gives a result record; none imports another."""
