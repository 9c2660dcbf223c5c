"""The environment of a worker's process: what it is given, and what of the machine's it is not left with."""

import os
import re
import signal
from collections.abc import Iterator
from contextlib import contextmanager

from cluster.machine import collect_garbage_rarely

_NAMES = re.compile(
    r"TOKEN(?!IZERS)|SECRET|PASSW|PASSPHRASE|CREDENTIAL|APIKEY|(^|_)KEY(_|$)|CONNECTION_STRING|SSH_AUTH|KUBECONFIG"
    r"|_SAS$|_PAT$",
    re.IGNORECASE,
)
_LOGIN = re.compile(r"://[^/@\s]*:[^/@\s]*@")
"""A user's name and password in an address."""
_RAYS_OWN = re.compile("RAY_(?!AUTH_TOKEN$)")
"""Where its keys and certificates lie: it reads them with each connection. Its token it has read by then, and keeps."""
_taken: dict[str, str] = {}
_settled: list[int] = []
"""The id of this process, if it is a worker's: a forked child is another."""


def settle_in(environment: dict[str, str]) -> None:
    """What every worker's process does before its first work: take `environment`, forget whatever opens a door, hear
    SIGTERM.

    Nobody but the driver fetches models and data or speaks to MLflow, so no worker needs to log in anywhere. Where Ray
    was started with such variables, the system keeps showing the first ones to this user in /proc: a program that must
    not see them runs in a sandbox (`competitors.command`).
    """
    _settled[:] = [os.getpid()]
    os.environ.update(environment)
    for name in [name for name, value in os.environ.items() if is_credential(name, value)]:
        _taken[name] = os.environ.pop(name)
    collect_garbage_rarely()
    # A Ray of our own keeps it from whatever it starts (`cluster.on_ray.own_ray`): pools and loaders end their
    # children by it.
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})


@contextmanager
def with_credentials() -> Iterator[None]:
    """While the block lasts, what `settle_in` took away is back: for the client of a store, which reads it once."""
    os.environ.update(_taken)
    try:
        yield
    finally:
        for name in _taken:
            del os.environ[name]


def is_worker() -> bool:
    """Whether this process is a worker's, in which one call runs at a time."""
    return os.getpid() in _settled


def is_credential(name: str, value: str) -> bool:
    """Whether a variable logs somebody in somewhere, by its name or by a password in its value."""
    return not _RAYS_OWN.match(name) and bool(_NAMES.search(name) or _LOGIN.search(value))
