"""`tournament new`: a config for people who have none, from a base, a data file and a budget of time.

Looks at the data, the base and the machine, and writes what it found. Knows no run directory and no round.
"""
