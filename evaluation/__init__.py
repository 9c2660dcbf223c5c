"""Held-out discipline: data and splits, inspection of submissions, losses, and their comparison."""
