"""Every error that the tournament raises on purpose.

TournamentError
├── UserError        the user's config, data or call is wrong          exit code 1
├── Forfeit          a competitor's own failure: it loses its round, the round goes on
└── ClusterTrouble   the cluster or the evaluator failed, not a competitor; go on with the same
                     command                                           exit code 3

Each carries one line for a person, naming the file, key or row. They live in the lowest layer because
every layer raises them.
"""


class TournamentError(Exception):
    """Base of the errors that carry a line for a person."""


class UserError(TournamentError, ValueError):
    """The user's config, data or call is wrong; the message names the file, the key or the row."""


class Forfeit(TournamentError):
    """A competitor did not deliver a valid submission; the message says why, in words."""


class ClusterTrouble(TournamentError):
    """Work failed through no fault of a competitor; the tournament stops and can be gone on with."""
