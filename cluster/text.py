"""Text that somebody else has written: a competitor's reason, a tensor's name, a program's last line."""

LENGTH = 300


def plain(text: object, length: int = LENGTH) -> str:
    """One line of at most `length` characters that can do nothing to a terminal, a table or a page's layout.

    Used once, where such text enters a record. Whoever shows it still escapes it for where it is shown.
    """
    raw = str(text)
    words = " ".join("".join(c if c.isprintable() else " " for c in raw[: 8 * length]).split())
    return words if len(words) <= length else words[: length - 1] + "…"
