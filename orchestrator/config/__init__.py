"""The tournament's config: its sections, the whole of it, reading it, and where two differ.

Checks everything that can be known before anything runs. Imports neither torch nor ray nor mlflow.
"""
