"""The base models that come along: very small ones, made on the spot."""
