"""The files of a submission: which there are, and opening one. Nothing but plain files of known names is accepted.

Links, pipes, devices and sockets are only named, never opened, and nothing is followed out of the folder. Of what
lies there, only configs and weights are ever read; the rest of the known names is what trainers leave beside them.
"""

import json
import os
import re
import stat
from pathlib import Path
from typing import Any

from cluster.errors import Forfeit
from cluster.text import plain

Files = dict[str, Path]
"""The plain files of a folder by name, and where each lies."""

CONFIG, ADAPTER_CONFIG = "config.json", "adapter_config.json"
KNOWN = re.compile(
    r"(config|generation_config|adapter_config|tokenizer|tokenizer_config|special_tokens_map|added_tokens|vocab"
    r"|chat_template|preprocessor_config|processor_config|trainer_state|model\.safetensors\.index)\.json"
    r"|[A-Za-z0-9][A-Za-z0-9._-]*\.safetensors"
    r"|(tokenizer|sentencepiece[a-z.]*|spiece|spm)\.model|merges\.txt|vocab\.txt|chat_template\.jinja"
    r"|README\.md|LICENSE(\.[a-z]+)?|\.gitattributes"
)
"""What a model's or an adapter's folder may hold."""
PROGRAMS = (".py", ".bin", ".pt", ".pkl", ".pth", ".so", ".pyc")
MOST_FILES = 1000
MOST_JSON = 2**20
BESIDE_WEIGHTS = 256 * 2**20
"""So many bytes may lie beside the weights: tokenizers, mostly."""


def plain_files(folder: Path, most_bytes: int, hub_links: bool = False) -> Files:
    """Every file of the folder. Forfeit if there is anything but plain files of known names, or too much of it.

    What a file claims to hold counts, not what it takes on the disk: a hole is read like data. With `hub_links` a
    link into the hub's own cache is as good as a file: a person gave the folder, not a competitor.
    """
    files: Files = {}
    size = 0
    if not stat.S_ISDIR(os.lstat(folder).st_mode):
        raise Forfeit("is no folder")
    with os.scandir(folder) as entries:
        for entry in entries:
            if len(files) == MOST_FILES:
                raise Forfeit(f"holds more than {MOST_FILES:,} files")
            status, path = entry.stat(follow_symlinks=False), folder / entry.name
            if stat.S_ISLNK(status.st_mode) and hub_links:
                path, status = _in_the_hubs_cache(path)
            _refuse_odd(entry.name, status)
            files[entry.name] = path
            size += status.st_size
    for name in sorted(files):
        if not KNOWN.fullmatch(name):
            raise Forfeit(plain(f"holds {name}, which is no part of a model that is known here"))
    if size > most_bytes:
        raise Forfeit(
            f"its files claim {size / 1e9:.1f} GB, more than the {most_bytes / 1e9:.1f} GB it may need at most"
        )
    return files


def _in_the_hubs_cache(link: Path) -> tuple[Path, os.stat_result]:
    """The file behind a link of a snapshot to its repository's blobs; the link itself where it leads elsewhere."""
    target, snapshots = Path(os.path.realpath(link)), link.parent.resolve().parent
    if snapshots.name == "snapshots" and target.parent == snapshots.parent / "blobs" and target.exists():
        return target, os.lstat(target)
    return link, os.lstat(link)


def _refuse_odd(name: str, status: os.stat_result) -> None:
    if not name.isprintable():  # a control character, or bytes that are no UTF-8
        raise Forfeit(plain(f"holds a file of an odd name: {name!a}"))
    if stat.S_ISLNK(status.st_mode):
        raise Forfeit(plain(f"holds a link, {name}: only plain files are accepted"))
    if stat.S_ISDIR(status.st_mode):
        raise Forfeit(plain(f"holds a folder, {name}: a model's files lie side by side"))
    if not stat.S_ISREG(status.st_mode):
        raise Forfeit(plain(f"holds a pipe, socket or device, {name}: only plain files are accepted"))
    if name.endswith(PROGRAMS):
        raise Forfeit(plain(f"holds {name}: only safetensors and JSON are accepted, nothing that runs code"))


def open_plain(path: Path) -> int:
    """A descriptor of a plain file, which is neither a link nor waited for. Forfeit if it is something else."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except PermissionError as error:
        raise Forfeit(plain(f"{path.name} may not be read")) from error
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise Forfeit(plain(f"{path.name} is no plain file"))
    return descriptor


def read_object(path: Path, most: int = MOST_JSON) -> dict[str, Any]:
    """The keys and values of a JSON file. Forfeit if it is too long, is none, or says a key twice."""
    with os.fdopen(open_plain(path), "rb") as stream:
        text = stream.read(most + 1)
    if len(text) > most:
        raise Forfeit(plain(f"{path.name} is longer than {most:,} bytes"))
    return parse_object(text, path.name)


def parse_object(text: bytes, what: str) -> dict[str, Any]:
    """The keys and values of JSON text that is called `what`."""
    try:
        value = json.loads(text, object_pairs_hook=_without_repetition)
    except (ValueError, RecursionError) as error:
        raise Forfeit(plain(f"{what} cannot be read: {error}")) from error
    if not isinstance(value, dict):
        raise Forfeit(plain(f"{what} cannot be read: it holds no keys and values"))
    return value


def _without_repetition(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """As a dict. Of a key that is there twice, one library takes the first and another the last."""
    found = dict(pairs)
    if len(found) < len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise ValueError(f"it says {twice} twice")
    return found
