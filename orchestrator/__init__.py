"""The tournament itself: the loop over lineages and rounds, and a room for each thing that it needs or shows.

The only place that sees competitors and evaluation both. Owns choosing, resuming, and what is shown; does not know how
anything trains or how a loss is computed.
"""
