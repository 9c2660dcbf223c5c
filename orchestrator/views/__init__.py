"""What a person sees: leaderboard, tables, live table, report, export, evaluate.

Reads the record only; nothing is decided here, and only the driver and the command line know it.
"""
