"""An entry's log, log.txt in its folder: what it prints, both ends of it where that is much, and how it ended.

Whoever prints appends to the file itself, so that the last words of a process that is killed are in it. The middle of
a long one is cut out in place.
"""

import os
import re
from datetime import datetime
from pathlib import Path

from cluster.store import LOCAL
from cluster.text import discreet
from competitors.untrusted import append, open_plain

KEEP_BYTES = 2**20
"""Of each end."""
LEFT_OUT = re.compile(rb"\n\[\.\.\. ([\d,]+) bytes left out \.\.\.\]\n")
NOT_PLAIN = re.compile(
    r"\x1b\[[0-?]*[ -/]*[@-~]|[\x00-\x08\x0b-\x1f\x7f-\x9f\xad\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff]"
)
"""Colours, and characters that move what a terminal or a page shows."""


def shorten(log: Path, longest: int = 3 * KEEP_BYTES, keep: int = KEEP_BYTES) -> None:
    """Of a log of more than `longest` bytes leave the first and the last `keep`, and say how many went."""
    if (stream := open_plain(log, os.O_RDWR)) is None:
        return
    with stream:
        if stream.seek(0, os.SEEK_END) <= longest:
            return
        stream.seek(keep)
        before = LEFT_OUT.match(stream.read(80))
        gone = int(before[1].replace(b",", b"")) - len(before[0]) if before else 0
        start = stream.seek(-keep, os.SEEK_END)
        end = stream.read()  # with what was printed meanwhile
        stream.seek(keep)
        stream.write(f"\n[... {start - keep + gone:,} bytes left out ...]\n".encode() + end)
        stream.truncate()


def note(log: Path, words: str) -> None:
    """Add a line of the tournament's own."""
    append(log, f"{datetime.now():%Y-%m-%d %H:%M:%S} {words}\n")


def conclude(log: Path, words: str) -> None:
    """The entry has ended, and `words` say how: the last line. What it has printed is plain text from now on, without
    passwords in addresses; what it has put in its log's place is removed. So with the logs of a gang's other workers.
    """
    for file in (log, *log.parent.glob("log-*.txt")):
        if not file.is_file() or file.is_symlink():
            LOCAL.remove(file)
            continue
        shorten(file, 2 * KEEP_BYTES, KEEP_BYTES)
        raw = file.read_bytes()
        if (text := harmless_lines(raw.decode(errors="replace"))).encode() != raw:
            LOCAL.write_text(file, text)
    note(log, words)


def harmless_lines(text: str) -> str:
    """What a program prints, line by line, as text that can do nothing to a terminal or a page. Each state of a
    progress bar is a line."""
    lines = discreet(NOT_PLAIN.sub("", re.sub(r"\r+\n?", "\n", text)))
    return lines if not lines or lines.endswith("\n") else f"{lines}\n"
