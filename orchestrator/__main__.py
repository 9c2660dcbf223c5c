"""`python -m orchestrator` is the same as `tournament`."""

from orchestrator.cli import main

main()
