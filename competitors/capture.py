"""What an entry prints and logs goes into a file of its own, also where several compete in threads of one process.

In a process of its own, so does what native code and child processes print: a CUDA assertion, a build, NCCL.
"""

import logging
import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TextIO, cast

from cluster import environment
from competitors.log import shorten

LOOK_SECONDS = 0.5
"""How often it is asked whether a log has grown too long."""
_here = threading.local()
_open: list[TextIO] = []
"""The logs of all entries that compete in this process now."""
_before: list[Any] = []
"""stdout, stderr and the log's level as they were before the first of them."""
_descriptors: list[int] = []
"""Copies of the process's own stdout and stderr, while these lead to a log."""
_changing = threading.Lock()


def _log() -> TextIO | None:
    """The log that this thread's output belongs to. What a competitor's own threads print is its as long as it is
    alone in its process."""
    own: TextIO | None = getattr(_here, "log", None)
    return own if own is not None else _open[0] if len(_open) == 1 else None


class _Routed:
    """Stands for stdout or stderr, and passes on what each thread prints to where that belongs.

    Libraries keep the stream that they found: this one stays usable when the entry has ended.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def _target(self) -> TextIO:
        stream = _log() or self._stream
        fallback = sys.__stderr__
        return fallback if stream.closed and fallback is not None else stream

    def write(self, text: str) -> int:
        """Print."""
        return self._target().write(text)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._target(), name)


@contextmanager
def captured_output(path: Path) -> Iterator[None]:
    """Send what this thread prints and logs to the entry's own log.txt; see `competitors.log`."""
    with path.open("a", encoding="utf-8", errors="backslashreplace", buffering=1) as log:
        handler = logging.StreamHandler(log)
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
        handler.addFilter(lambda record: _log() is log)
        ended = threading.Event()
        _come_in(log, handler)
        _here.log = log
        threading.Thread(target=_keep_short, args=(path, ended), daemon=True).start()
        try:
            yield
        finally:
            ended.set()
            _here.log = None
            _go_out(log, handler)


def _keep_short(path: Path, ended: threading.Event) -> None:
    while not ended.wait(LOOK_SECONDS):
        with suppress(OSError):  # such as a disk that is full: whoever prints will be told
            shorten(path)


def _come_in(log: TextIO, handler: logging.Handler) -> None:
    """Open an entry's log; the first one in has the process's streams routed."""
    root = logging.getLogger()
    with _changing:
        if not _open:
            _before[:] = [sys.stdout, sys.stderr, root.level]
            if environment.is_worker():
                _redirect(log)
            sys.stdout, sys.stderr = cast(TextIO, _Routed(sys.stdout)), cast(TextIO, _Routed(sys.stderr))
            root.setLevel(logging.INFO)
        root.addHandler(handler)
        _open.append(log)


def _go_out(log: TextIO, handler: logging.Handler) -> None:
    """Close an entry's log; the last one out leaves the process's streams as they were."""
    root = logging.getLogger()
    with _changing:
        _open.remove(log)
        root.removeHandler(handler)
        if not _open:
            sys.stdout, sys.stderr, level = _before
            root.setLevel(level)
            _take_back()


def _redirect(log: TextIO) -> None:
    """Have the process's own stdout and stderr lead to the log."""
    sys.stdout.flush()
    sys.stderr.flush()
    for number in (1, 2):
        _descriptors.append(os.dup(number))
        os.dup2(log.fileno(), number)


def _take_back() -> None:
    for number, own in enumerate(_descriptors, start=1):
        os.dup2(own, number)
        os.close(own)
    _descriptors.clear()
