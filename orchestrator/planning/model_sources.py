"""From what a config calls a model to a folder with one: a local folder, the hub, or one that is built in."""

from pathlib import Path

from cluster.errors import UserError
from cluster.records import nearest
from cluster.text import plain
from competitors.output import model_form
from evaluation.chat import stop_id

BUILTIN = "builtin:"
LFS = b"version https://git-lfs.github.com/"
"""What a file of Git LFS begins with where only its pointer was fetched."""
TOKENIZERS = ("tokenizer.json", "tokenizer.model", "vocab.json")
HUB_SECONDS = 5
"""So long a plan waits for the hub to answer."""


def locate(spec: str, config_folder: Path) -> Path | None:
    """The local folder that `spec` names, beside the config or below the current folder; None if there is none."""
    given = Path(spec).expanduser()
    for folder in (config_folder / given, Path.cwd() / given):
        if folder.is_dir():
            return folder.resolve()
    return None


def is_away(spec: str, config_folder: Path) -> bool:
    """Whether a model is of the hub: neither built in nor on this machine."""
    return not spec.startswith(BUILTIN) and locate(spec, config_folder) is None


def cached(spec: str) -> Path | None:
    """Where the hub's cache has a hub model's config.json, and its weights if they were fetched; no network."""
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    try:
        found = try_to_load_from_cache(spec, "config.json")
    except HFValidationError:  # no name of the hub
        return None
    return Path(found).parent if isinstance(found, str) else None


def check_folder(folder: Path, key: str) -> None:
    """UserError unless `folder` is a whole Hugging Face model folder with a tokenizer."""
    if not (folder / "config.json").is_file():
        raise UserError(f"{key}: {folder} has no config.json: it is no Hugging Face model folder")
    if model_form(folder) != "full":
        raise UserError(f"{key}: {folder} has no weights (model.safetensors or model.safetensors.index.json)")
    if not any((folder / name).is_file() for name in TOKENIZERS):
        raise UserError(f"{key}: {folder} has no tokenizer (tokenizer.json or tokenizer.model)")


def check_tokenizer(folder: Path, chat: bool) -> None:
    """UserError, naming the file, where the tokenizer in `folder` is damaged, or is to `chat` and has no template."""
    from tokenizers import Tokenizer

    if (file := folder / "tokenizer.json").is_file():
        try:
            Tokenizer.from_file(str(file))
        except Exception as error:  # tokenizers raises no other class
            raise damaged(file, error) from error
    if chat:
        from evaluation.loading import tokenizer_of

        stop_id(tokenizer_of(folder), chat)


def damaged(file: Path, error: Exception) -> UserError:
    """What to say of a model's file that cannot be read."""
    with file.open("rb") as stream:
        is_pointer = stream.read(len(LFS)) == LFS
    said = "it is a pointer of Git LFS, not the file: git lfs pull" if is_pointer else plain(error, 120)
    return UserError(f"{file}: cannot be read: {said}")


def check(spec: str, config_folder: Path, key: str) -> Path | None:
    """The folder of a local model, checked; None for built-in models and hub names, whose form is checked."""
    if spec.startswith(BUILTIN):
        from competitors.builtin.bases import BUILTIN_BASES

        name = spec.removeprefix(BUILTIN)
        if name not in BUILTIN_BASES:
            raise UserError(f'{key}: no built-in base "{name}"{nearest(name, BUILTIN_BASES)}')
        return None
    folder = locate(spec, config_folder)
    if folder is not None:
        check_folder(folder, key)
        return folder
    if spec.startswith((".", "/", "~")) or spec.count("/") > 1:
        raise UserError(f"{key}: {spec}: there is no such folder")
    return None


def config_of(spec: str, key: str) -> Path:
    """The config.json of a hub model, from the cache or the hub: a few kilobytes, no weights. UserError without."""
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError, HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    if spec.startswith((".", "/", "~")) or spec.count("/") > 1:
        raise UserError(f"{key}: {spec}: there is no such folder")
    try:
        return Path(hf_hub_download(spec, "config.json"))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, EntryNotFoundError, OSError) as error:
        raise UserError(
            f"{key}: {spec} is no local folder and its config.json could not be had from the Hugging Face hub"
            f" ({type(error).__name__}), so no field can be made for it; list competitors, or give a local folder"
        ) from error


def tokenizer_of(spec: str) -> Path | None:
    """A folder with a hub model's tokenizer and config.json, from the hub or its cache: some megabytes, no weights.
    None where they cannot be had."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    wanted = ["config.json", "tokenizer*", "*.model", "vocab.json", "merges.txt", "special_tokens_map.json"]
    try:
        folder = Path(snapshot_download(spec, allow_patterns=wanted, etag_timeout=HUB_SECONDS))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError):
        return None
    return folder if any((folder / name).is_file() for name in TOKENIZERS) else None


def download(spec: str, destination: Path, key: str) -> Path:
    """Fetch a hub model into `destination`, where every node of the cluster finds it."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    wanted = ["*.json", "*.safetensors", "*.model", "*.txt", "*.jinja"]
    try:
        snapshot_download(spec, local_dir=destination, allow_patterns=wanted)
    except HFValidationError as error:
        raise UserError(f"{key}: {spec} is neither a local folder nor a hub name (organisation/name)") from error
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        raise UserError(
            f"{key}: {spec} is no local folder and could not be had from the Hugging Face hub"
            f" ({type(error).__name__}): check the name, log in if it is gated (hf auth login), or give a local folder"
        ) from error
    check_folder(destination, key)
    return destination
