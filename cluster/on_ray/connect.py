"""Connecting to Ray: a running cluster, or a Ray of our own on this machine."""

import logging
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

from cluster.errors import ClusterTrouble, UserError
from cluster.on_ray.own_ray import end_own_ray, our_sigterm_handler, sigterm_kept_from_it
from cluster.on_ray.ray_private import TOKEN_LOGGER, resolved_address
from cluster.text import plain, said_by

LOCAL = "local"
"""The address of a Ray of our own on this machine."""


@contextmanager
def connected(address: str | None) -> Iterator[dict[str, float]]:
    """Be connected to Ray while the block lasts; yields the cluster's total resources.

    `address` as for ray.init; None takes RAY_ADDRESS, and without it starts Ray here and ends it afterwards. A
    program that is connected already stays connected, and so it does afterwards. UserError when a cluster was asked
    for by address and none answers there, or the program is connected to another.
    """
    import ray

    if ray.is_initialized():
        joined = ray.get_runtime_context().gcs_address
        if address not in (None, joined):
            raise UserError(f"cannot join the Ray cluster at {address}: this program is connected to {joined} already")
        yield ray.cluster_resources()
        return
    # "local" and not None: with None Ray joins whatever cluster was last started on this machine, dead or not.
    address = address or os.environ.get("RAY_ADDRESS") or LOCAL
    # Ray would overwrite the accelerator variables of actors without GPUs; such an actor must see none.
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "1")
    require_answer(address)
    is_own = address == LOCAL
    if is_own:
        # Ray gives its own cluster a token, as it should, and warns of it.
        logging.getLogger(TOKEN_LOGGER).setLevel(logging.ERROR)
    try:
        with sigterm_kept_from_it() if is_own else nullcontext(), our_sigterm_handler():
            ray.init(
                address=address,
                include_dashboard=False if is_own else None,
                log_to_driver=False,
                logging_level=logging.WARNING,
                configure_logging=False,
            )
    except ConnectionError as error:
        raise UserError(f"no Ray cluster answers at {address}: {said_by(error)}") from error
    except Exception as error:  # whose own process does not come up it says by a bare Exception
        if is_own:
            raise ClusterTrouble(f"Ray did not start on this machine: {said_by(error)}") from error
        # All of it: where versions differ, the first line does not say which.
        raise UserError(f"cannot join the Ray cluster at {address}: {plain(error)}") from error
    try:
        yield ray.cluster_resources()
    finally:
        if is_own:
            end_own_ray()
        else:
            ray.shutdown()


def require_answer(address: str | None) -> None:
    """UserError where a cluster is asked for by address and nothing listens there: ray.init would try for minutes."""
    address = address or os.environ.get("RAY_ADDRESS") or LOCAL
    if address == LOCAL or "://" in address:
        return
    try:
        resolved = resolved_address(address)
    except ValueError as error:
        raise UserError(f"{address} is no Ray address: give host:port, auto or local") from error
    host, _, port = resolved.rpartition(":")
    if not port.isdigit():
        raise UserError(f"no Ray cluster answers at {address}: none was started on this machine")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=10).close()
    except OSError as error:
        where = address if address == resolved else f"{address} ({resolved})"
        raise UserError(f"no Ray cluster answers at {where}: {error.strerror or error}") from error
