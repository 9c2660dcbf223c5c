"""SHA-256 of files, and of models: of what a model is, not of where it lay or in which order a set was written."""

import hashlib
import json
from pathlib import Path
from typing import Any

NOT_THE_MODEL = ("base_model_name_or_path", "_name_or_path", "revision", "peft_version", "transformers_version")
"""Keys of a config that say where something lay, or what wrote it."""
SETS = ("target_modules", "modules_to_save", "exclude_modules", "feedforward_modules")
"""Keys of an adapter's config that PEFT keeps as sets and writes in no order."""
CONFIGS = ("adapter_config.json", "config.json")


def sha256_of(path: Path) -> str:
    """SHA-256 of a file."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def model_sha256(folder: Path) -> str:
    """SHA-256 of a model or adapter folder: over the sorted relative names and the hashes of its files.

    The model's configs count by their content: keys in order, sets sorted, paths and versions left out.
    """
    digest = hashlib.sha256()
    for file in sorted(p for p in folder.rglob("*") if p.is_file()):
        content = _config_sha256(file) if file.name in CONFIGS else sha256_of(file)
        digest.update(f"{file.relative_to(folder).as_posix()}\0{content}\n".encode())
    return digest.hexdigest()


def _config_sha256(file: Path) -> str:
    try:
        config: Any = json.loads(file.read_bytes())
    except (ValueError, RecursionError):
        return sha256_of(file)
    if isinstance(config, dict):
        config = {key: value for key, value in config.items() if key not in NOT_THE_MODEL}
        for key in SETS:
            if isinstance(config.get(key), list):
                config[key] = sorted(map(str, config[key]))
    return hashlib.sha256(json.dumps(config, sort_keys=True).encode()).hexdigest()
