"""A folder as what its files hold: how it goes from one machine to another, by way of an object store.

A small file travels with the word of it; a large one is a blob of the store, and where nobody reads it, as on the
driver's machine, a short text stands in its place that says which blob: it may be copied, moved and linked like any
file, and goes on meaning the same. Hidden files are nobody's but their own machine's.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path

from pydantic import ConfigDict

from cluster.bucket.blobs import Blob, Blobs
from cluster.records import Record
from cluster.store import LOCAL, Looks, looks_of

SMALL_BYTES = 256 << 10
"""What is larger is a blob."""
STAND_IN = "stored as a blob: tournament 1 "
READ_HERE = (".parquet", ".jsonl", ".txt", ".json", ".yaml")
"""What is read on any machine, and so never stood in for, however large."""
GROWS = (".jsonl", ".txt")
"""What is only ever appended to while a call runs."""


class _WithBytes(Record):
    model_config = ConfigDict(ser_json_bytes="base64", val_json_bytes="base64")


class Content(_WithBytes):
    """What a file holds: its bytes, or the blob that they are."""

    data: bytes | None = None
    blob: Blob | None = None


class Grown(_WithBytes):
    """What was appended to a file behind its first `offset` bytes."""

    offset: int
    data: bytes


class Change(_WithBytes):
    """How a folder became another: first files and folders go, then files come, then some grow. Names are relative."""

    removed: list[str] = []
    files: dict[str, Content] = {}
    grown: dict[str, Grown] = {}


def files_below(top: Path) -> Iterator[tuple[str, Path]]:
    """Every file in a folder that is part of it, with its name there; links are not followed, and not part of it."""
    if not top.is_dir():
        return
    for path in sorted(top.iterdir()):
        if path.name.startswith(".") or path.is_symlink():
            continue
        if path.is_dir():
            yield from ((f"{path.name}/{name}", file) for name, file in files_below(path))
        elif path.is_file():
            yield path.name, path


def looks_below(top: Path) -> dict[str, Looks]:
    """How each file of a folder looks now."""
    found = ((name, looks_of(path)) for name, path in files_below(top))
    return {name: looks for name, looks in found if looks is not None}  # without what is gone meanwhile


def stood_in_for(path: Path) -> Blob | None:
    """The blob that the file at `path`, which we have put here, stands for; None where it is what it seems."""
    if path.suffix in READ_HERE or not _looks_like_a_stand_in(path):
        return None
    return Blob.model_validate_json(path.read_bytes().removeprefix(STAND_IN.encode()))


def _looks_like_a_stand_in(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(len(STAND_IN)) == STAND_IN.encode()


def content_of(path: Path, blobs: Blobs) -> Content:
    """What the file at `path` holds; a large one is in the store when this returns. So is one that somebody made look
    like a stand-in: what comes to lie in its place is a real one, of that text."""
    if path.stat().st_size > SMALL_BYTES or _looks_like_a_stand_in(path):
        return Content(blob=blobs.put_file(path))
    return Content(data=path.read_bytes())


def write(content: Content, path: Path, blobs: Blobs) -> None:
    """Have the file at `path` hold this, or stand for it where it is large and not read on every machine."""
    with LOCAL.writing(path) as temporary:
        if content.blob is None:
            assert content.data is not None
            temporary.write_bytes(content.data)
        elif path.suffix in READ_HERE:
            blobs.fetch(content.blob, temporary)
        else:
            temporary.write_text(f"{STAND_IN}{content.blob.model_dump_json()}\n", encoding="utf-8")


def apply(change: Change, top: Path, blobs: Blobs) -> None:
    """Make the folder `top` what it became."""
    for name in change.removed:
        LOCAL.remove(top / name)
        for folder in (top / name).parents:
            if folder == top or not folder.is_dir() or any(folder.iterdir()):
                break
            folder.rmdir()
    for name, content in change.files.items():
        write(content, top / name, blobs)
    for name, grown in change.grown.items():
        with (top / name).open("r+b") as file:
            file.seek(grown.offset)
            file.write(grown.data)


def make_whole(top: Path, blobs: Blobs) -> None:
    """Have every file below `top`, or `top` itself, be what it stands for."""
    for path in [top] if top.is_file() else [path for _, path in files_below(top)]:
        if (blob := stood_in_for(path)) is not None:
            blobs.get_file(blob, path)


def after(states: Mapping[str, Content], change: Change) -> dict[str, Content]:
    """The contents of a folder, by name, after a change that lets nothing grow."""
    assert not change.grown
    gone = tuple(f"{name}/" for name in change.removed)
    kept = {n: c for n, c in states.items() if n not in change.removed and not n.startswith(gone)}
    return kept | change.files
