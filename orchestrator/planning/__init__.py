"""Before anything runs: what would run, what memory it takes, where models come from.

Reads configs and model folders; knows no run directory and no round.
"""
