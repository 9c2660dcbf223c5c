"""What is checked and made before anything is placed: models, recipes, data."""

from collections.abc import Callable
from importlib.metadata import entry_points
from pathlib import Path

from cluster.errors import UserError
from cluster.store import LOCAL
from evaluation.data import sources
from evaluation.data.raw_places import raw_places
from evaluation.data.splits import make_splits
from evaluation.harness import count_documents
from orchestrator.config.tournament import TournamentConfig
from orchestrator.planning import model_sources
from orchestrator.planning.model_shape import describe_folder

MLFLOW_SCHEMES = (
    "", "databricks", "databricks-uc", "file", "http", "https", "mssql", "mysql", "postgresql", "sqlite", "uc",
)  # fmt: skip
"""Of a tracking URI; without one it is a folder. MLflow's own registry, which takes seconds to import."""


def check_inputs(config: TournamentConfig, config_file: Path) -> None:
    """UserError for a base or a reference that is no model, or a damaged one, or a recipe whose programs are not there.

    Of weights the headers are read, of references that chat the template is tried. Models of the hub are not here yet.
    """
    chats = {f"references[{one.name}].model" for one in config.references if one.prompt == "chat"}
    for key, spec in config.models:
        folder = model_sources.check(spec, config_file.parent, f"{config_file}: {key}")
        if folder is None:
            continue
        try:
            describe_folder(folder)
            model_sources.check_tokenizer(folder, chat=key in chats)
        except UserError as error:
            raise UserError(f"{config_file}: {key}: {error}") from error
    _check_tracking(config.tracking.uri, config_file)
    withheld = raw_places(config.data.source, config_file.parent)
    for recipe in config.competitors:
        try:
            recipe.located(config_file.parent).kept_from(withheld).check()
        except UserError as error:
            raise UserError(f"{config_file}: competitors[{recipe.name}].{error}") from error


def _check_tracking(uri: str | None, config_file: Path) -> None:
    """UserError for an address of a kind that MLflow does not know, with the plugins that are installed."""
    scheme = uri.partition(":")[0].partition("+")[0] if uri is not None and "://" in uri else ""
    if scheme in MLFLOW_SCHEMES or scheme in entry_points(group="mlflow.tracking_store").names:
        return
    known = ", ".join(one for one in MLFLOW_SCHEMES if one)
    raise UserError(f"{config_file}: tracking.uri: MLflow knows no {scheme}://; known are {known}")


def bring_models(config: TournamentConfig, config_file: Path, folder_of: Callable[[str], Path]) -> None:
    """Fetch hub models, and local ones if nodes share no disk, to the folder that `folder_of` names for each."""
    for key, spec in config.models:
        where = f"{config_file}: {key}"
        local = model_sources.check(spec, config_file.parent, where)
        if local is not None and config.cluster.bucket is not None:
            LOCAL.link_folder(local, folder_of(spec))
        elif local is None and not spec.startswith(model_sources.BUILTIN):
            model_sources.download(spec, folder_of(spec), where)


def make_data(config: TournamentConfig, config_file: Path, out: Path) -> None:
    """Load the config's data and write its splits to `out`. UserError for whatever is wrong with it."""
    data = config.data
    try:
        rows = sources.load(data.source, config_file.parent)
        source = ", ".join(data.sources)
        make_splits(
            rows,
            data.prompt,
            data.completion,
            data.validation_rows,
            data.test,
            config.seed,
            out,
            source,
            config.slice_rows,
            data.group,
            data.near_duplicates,
            config.turns,
        )
    except UserError as error:
        raise UserError(f"{config_file}: {error}") from error


def fetch_tasks(config: TournamentConfig, config_file: Path, own: Path) -> None:
    """Copy the user's own tasks to `own`, and fetch the data of all tasks. UserError for what cannot be used."""
    asked = config.evaluation
    if asked.harness_tasks is not None:
        source = config_file.parent / asked.harness_tasks
        if not source.is_dir():
            raise UserError(f"{config_file}: evaluation.harness_tasks: {source} is no folder")
        LOCAL.copy_folder(source, own)
    for task in asked.harness:
        try:
            count_documents(task, own)
        except UserError as error:
            raise UserError(f"{config_file}: {error}") from error
