"""The contract between the tournament and a training recipe, and a room or file for each kind of recipe.

Knows no held-out rows, no other competitor but a soup's ingredients, no MLflow, and not where it is placed.
"""
