"""Before anything runs: what would run, what memory it takes, where models come from; the data and models it needs.

Reads configs and model folders; knows no run directory and no round.
"""
