"""A web page as tests look at it: what it loads, what its tables and figures say."""

import json
from html.parser import HTMLParser
from pathlib import Path
from typing import Any


class Page(HTMLParser):
    """What a browser would make of the page: `links` it follows or loads, `rows` of its tables, `figures`, `text`."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.links: list[str] = []
        self.rows: list[list[str]] = []
        self.figures: dict[str, Any] = {}
        self.text, self.style, self.pre, self.scripts = "", "", "", []
        self.inside, self.figure, self.in_cell = "", "", False
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        known = dict(attrs)
        self.tags.append(tag)
        self.links += [known[key] or "" for key in ("src", "href", "action", "data", "srcset") if key in known]
        if tag in ("script", "style", "pre"):
            self.inside, self.figure = tag, known.get("data-figure") or ""
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")
            self.in_cell = True

    def handle_endtag(self, tag: str) -> None:
        if tag == self.inside:
            self.inside = self.figure = ""
        if tag in ("td", "th"):
            self.in_cell = False

    def handle_data(self, data: str) -> None:
        if self.figure:
            self.figures[self.figure] = json.loads(data)
        elif self.inside == "script":
            self.scripts.append(data)
        elif self.inside == "style":
            self.style += data
        elif self.inside == "pre":
            self.pre += data
        else:
            self.text += data
            if self.in_cell:
                self.rows[-1][-1] += data

    def traces(self, key: str = "test-loss") -> dict[str, dict[str, Any]]:
        """The traces of a figure by their name, without the value that the legend adds."""
        return {trace["name"].rpartition("  ")[0] or trace["name"]: trace for trace in self.figures[key]["data"]}
