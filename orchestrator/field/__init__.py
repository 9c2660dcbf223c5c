"""Who enters a round: shorthand, evolution, exploit, changes. Pure functions of recipes and plain values.

Knows neither the run directory nor the whole config: both are built on it.
"""
