"""`python -m fleet.cli`."""

from fleet.cli.app import main

main()
