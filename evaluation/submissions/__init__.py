"""What was submitted: whether it may be used, how an adapter is put on its seed, and what it becomes when promoted.

Knows nothing of held-out rows or of losses.
"""
