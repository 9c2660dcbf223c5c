"""What an entry prints and logs goes into a file of its own, also where several compete in threads of one process."""

import logging
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any, TextIO

_here = threading.local()
_open: list[TextIO] = []
"""The logs of all entries that compete in this process now."""


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
    """Send prints and log records of this thread to the entry's own log.txt."""
    with path.open("a", encoding="utf-8", buffering=1) as log, ExitStack() as stack:
        handler = logging.StreamHandler(log)
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
        handler.addFilter(lambda record: _log() is log)
        root = logging.getLogger()
        level = root.level
        root.addHandler(handler)
        root.setLevel(logging.INFO)
        if not _open:  # the first one in; whoever comes later finds the streams routed
            stack.enter_context(redirect_stdout(_Routed(sys.stdout)))
            stack.enter_context(redirect_stderr(_Routed(sys.stderr)))
        _open.append(log)
        _here.log = log
        try:
            yield
        finally:
            _here.log = None
            _open.remove(log)
            root.removeHandler(handler)
            root.setLevel(level)
