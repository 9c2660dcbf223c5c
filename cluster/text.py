"""Text that somebody else has written: a competitor's reason, a tensor's name, a program's last line."""

import re

LENGTH = 300


def plain(text: object, length: int = LENGTH) -> str:
    """One line of at most `length` characters that can do nothing to a terminal, a table or a page's layout.

    Used once, where such text enters a record. Whoever shows it still escapes it for where it is shown.
    """
    raw = str(text)
    words = " ".join("".join(c if c.isprintable() else " " for c in raw[: 8 * length]).split())
    return words if len(words) <= length else words[: length - 1] + "…"


TAGS = {"<": "‹", ">": "›", "[": "(", "]": ")"}
"""What markup of a page or a terminal begins and ends with, and what stands there instead."""
EXTRA = re.compile(r"(\w\[[\w-]+\])|[<>\[\]]")
"""The same; but `package[extra]` is for a person to copy."""


def harmless(text: object) -> str:
    """A reason as it goes on record: plain, and no markup for whoever forgets to escape it."""
    return EXTRA.sub(lambda found: found[1] or TAGS[found[0]], plain(text))


def first_line(text: object) -> str:
    """The first line of what an error or a program says; empty where it says nothing."""
    return next(iter(str(text).strip().splitlines()), "")


def last_line(text: object) -> str:
    """The last line of what a program says; empty where it says nothing."""
    return next(iter(str(text).strip().splitlines()[::-1]), "")


def said_by(error: BaseException) -> str:
    """The first line of what an error says, not all of a long one, or its type where it says nothing."""
    return first_line(error)[:200] or type(error).__name__


def as_code(text: str) -> str:
    """Text as a Markdown code span, in which nothing can be escaped: its fence is longer than any in the text."""
    fence = "`" * (1 + max((len(run) for run in re.findall(r"`+", text)), default=0))
    return f"{fence}{text}{fence}" if len(fence) == 1 else f"{fence} {text} {fence}"


def discreet(text: str) -> str:
    """Without the user and password of a URL in it: what is shown is passed on, and they are not for everyone."""
    return re.sub(r"://[^/\s@'\"]+@", "://…@", text)
