"""How things are said to a person: durations, bars, lines of text that stay text."""

from pathlib import Path

from rich.console import Console


def print_line(console: Console, text: str) -> None:
    """One line as it is: nothing in it is markup, however it looks, and it is not wrapped."""
    console.print(text, markup=False, emoji=False, highlight=False, soft_wrap=True)


def bar(share: float, width: int = 8) -> str:
    """A share as a bar of `width` cells."""
    filled = round(max(0.0, min(1.0, share)) * width)
    return "█" * filled + "░" * (width - filled)


def duration(seconds: float) -> str:
    """Seconds as a person says them."""
    seconds = round(seconds)
    if seconds < 60:
        return f"{seconds} s"
    minutes, seconds = divmod(seconds, 60)
    return f"{minutes} min {seconds:02d} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"


def signed(value: float) -> str:
    """A gain or a loss in nats."""
    return f"{value:+.4f}".replace("-", "−")


def is_missing(path: Path) -> str:
    """What is said of a record that others rest on."""
    return f"{path}: is missing, though later records rest on it: put it back"
