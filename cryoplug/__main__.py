"""Run the command line as ``python -m cryoplug``."""

from cryoplug.cli.main import main

main()
