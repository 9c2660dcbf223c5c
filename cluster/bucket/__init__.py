"""A run directory whose record lies in an object store, and calls on machines that share no disk with it."""
