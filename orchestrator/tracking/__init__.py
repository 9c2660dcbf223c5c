"""Trackers: the record as MLflow, or another system, shows it.

Reads the record only; only the driver and the command line know it, and mlflow is imported by one file.
"""
