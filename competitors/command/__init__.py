"""Kind `command`: the user's own program in a sandbox, watched from outside.

Knows nothing of how anything trains.
"""
