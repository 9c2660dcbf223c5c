"""From a source of data to the splits of a run: reading rows, rendering them, cleaning them, and keeping splits apart.

Knows nothing of models or of what was submitted.
"""
