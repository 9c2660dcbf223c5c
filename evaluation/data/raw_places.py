"""Where raw rows lie outside the run directory, held-out ones among them: what an entry must not be shown."""

import os
from pathlib import Path

from evaluation.data.sources import BUILTIN, matches

HISTORIES = (".git", ".hg", ".svn", ".dvc")
"""Folders that keep what the files around them have held."""


def raw_places(source: str | list[str], folder: Path) -> list[Path]:
    """Files and folders, absolute, that hold rows of `source`, the `data.source` of a config that lies in `folder`.

    The files that it names now, the history of a repository that they lie in, the code that makes built-in rows, and
    whatever Hugging Face libraries keep of data sets on this machine, with the tokens that fetched them.
    """
    sources = [source] if isinstance(source, str) else source
    files = [path.absolute() for one in sources for path in matches(one, folder)]
    parents = {parent for file in files for path in (file, file.resolve()) for parent in path.parents}
    histories = [parent / name for parent in parents for name in HISTORIES]
    makers = [Path(__file__).parents[1] / "builtin"] if any(one.startswith(BUILTIN) for one in sources) else []
    return [path for path in (*files, *sorted(histories), *makers, *_caches()) if path.exists()]


def _caches() -> list[Path]:
    """What the Hugging Face libraries keep: data sets, as they were fetched and as they were prepared; tokens."""
    from huggingface_hub import constants

    prepared = os.environ.get("HF_DATASETS_CACHE") or Path(constants.HF_HOME) / "datasets"
    fetched = sorted(Path(constants.HF_HUB_CACHE).glob("datasets--*"))
    tokens = (constants.HF_TOKEN_PATH, constants.HF_STORED_TOKENS_PATH)
    return [Path(path).absolute() for path in (prepared, *fetched, constants.HF_XET_CACHE, *tokens)]
