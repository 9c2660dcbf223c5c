"""What is tried again, how often, and what comes of it in the end.

- A training whose process died, for want of memory as for any other reason, goes on from its last checkpoint in a
  new one. One that dies again and again is the entry's own affair: its last valid checkpoint is its submission, and
  without one it forfeits. (An error of Python for want of memory is a competitor's failure like others, and no death:
  `competitors/entry.py`.)
- A training whose node is lost, or for which no process is to be had, is tried again too. If that stays, it is the
  cluster's trouble: the tournament stops, and can be gone on with.
- Work of the evaluators is tried again in another process: see evaluators.py for whose trouble it is if that stays.
"""

from typing import Literal

from cluster.errors import ClusterTrouble
from cluster.workers import WorkerDied

ATTEMPTS = 3
"""How often work is tried when something other than a competitor is in trouble."""
ATTEMPTS_ON_A_SUBMISSION = 2
"""How often an evaluator tries a submission before the seed is scored, to find out whose trouble it is."""


def after_losing(trouble: ClusterTrouble, attempt: int) -> Literal["try again", "settle", "stop"]:
    """What to do about a training that was lost to `trouble` in its try number `attempt`."""
    if attempt < ATTEMPTS:
        return "try again"  # trouble.out_of_memory could be told apart here: another node may have more
    return "settle" if isinstance(trouble, WorkerDied) and not trouble.node_lost else "stop"
