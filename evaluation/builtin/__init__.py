"""The data that comes along: instructions that a very small model can learn, made by rule."""
