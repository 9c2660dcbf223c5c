"""Held-out discipline: data and its splits, inspection, scoring and promotion of submissions, figures, comparison.

Knows neither who trained a model and how, nor rounds and titles, MLflow, or where it is placed.
"""
