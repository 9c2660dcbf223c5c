"""Bad submissions, by kind: each a way to spoil a copy of a good one, and the reason it is to be rejected for."""
