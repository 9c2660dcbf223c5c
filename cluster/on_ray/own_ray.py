"""A Ray of our own on this machine: it outlives whatever signal stops the driver, and ends with it.

Slurm, systemd and `timeout` send SIGTERM to a whole process group or control group, and so to Ray's processes too,
which the driver needs for stopping in order. SIGINT Ray keeps from its processes itself.
"""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import psutil

from cluster.on_ray.ray_private import own_processes

ENDING_SECONDS = 10.0
"""So long Ray's workers and agents may take to find that their node has ended."""


@contextmanager
def sigterm_kept_from_it() -> Iterator[None]:
    """Have the processes that the block starts, and those that they start, not hear SIGTERM.

    A signal mask is inherited, where a group or session of their own could not be asked of Ray, and would not help
    against whoever signals a control group. Ours waits until the block ends. Workers hear SIGTERM again when they have
    settled in (`cluster.environment`).
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextmanager
def our_sigterm_handler() -> Iterator[None]:
    """Answer SIGTERM after the block as before it: ray.init puts handlers of its own in the place of ours."""
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        if before is not None and threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, before)


def end_own_ray() -> None:
    """What ray.shutdown does, and wait until whatever the Ray of our own started is gone too.

    ray.shutdown asks each of Ray's processes by SIGTERM to end, in vain, and kills it a second later. That is right for
    the node and then the control store, which what they started still talks to; the helpers need no such second.
    """
    import ray

    below: list[psutil.Process] = []
    for kind, process in own_processes():
        if kind == "raylet":
            with suppress(psutil.NoSuchProcess):
                below = psutil.Process(process.pid).children(recursive=True)
        elif kind != "gcs_server":
            process.kill()
    ray.shutdown()
    _, left = psutil.wait_procs(below, timeout=ENDING_SECONDS)
    for one in left:
        with suppress(psutil.NoSuchProcess):
            one.kill()
