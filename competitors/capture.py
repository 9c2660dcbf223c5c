"""What an entry prints and logs goes into a file of its own."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path


@contextmanager
def captured_output(path: Path) -> Iterator[None]:
    """Send prints and log records to the entry's own log.txt."""
    with path.open("a", encoding="utf-8", buffering=1) as stream:
        handler = logging.StreamHandler(stream)
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
        root = logging.getLogger()
        level = root.level
        root.addHandler(handler)
        root.setLevel(logging.INFO)
        try:
            with redirect_stdout(stream), redirect_stderr(stream):
                yield
        finally:
            root.removeHandler(handler)
            root.setLevel(level)
