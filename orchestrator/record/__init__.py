"""The run directory: its layout, its records, and one snapshot of them all.

The only state there is. Knows neither how a round comes about nor who looks at it.
"""
