"""Whether a whole budget is enough for the field, the data and the machines: known before anything is placed."""

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from cluster.errors import UserError
from competitors.sft.stream import count_tokens
from orchestrator.config.sections import Lineage
from orchestrator.config.tournament import TournamentConfig
from orchestrator.field.allocation import Plan
from orchestrator.field.growth import Room
from orchestrator.field.smallest import refuse_less, smallest_of_equal_rounds
from orchestrator.field.whole_budget import Corpus
from orchestrator.planning import model_sources


@dataclass(frozen=True)
class Ground:
    """Where it would run, as far as an allocation depends on it."""

    has_gpus: bool
    room: Room


def count_corpus(train_data: Path, tokenizer_folder: Path, max_tokens: int) -> Corpus:
    """How much there is to train on, in the tokens of a base. UserError where that is nothing."""
    rows, tokens, in_bytes = count_tokens(train_data, tokenizer_folder, max_tokens)
    if not rows:
        raise UserError(f"data.max_tokens: no training row has a completion within {max_tokens}")
    return Corpus(rows=rows, tokens=tokens, completion_bytes=in_bytes)


def corpora(config: TournamentConfig, config_folder: Path, data: Path) -> Iterator[tuple[Lineage, Corpus | None]]:
    """How much the splits in `data` hold for each lineage; None where its tokenizer cannot be had."""
    with tempfile.TemporaryDirectory() as scratch:
        for lineage in config.lineages:
            folder = _tokenizer(lineage, config_folder, Path(scratch))
            train = data / "train.parquet"
            yield lineage, None if folder is None else count_corpus(train, folder, config.data.max_tokens)


def _tokenizer(lineage: Lineage, config_folder: Path, scratch: Path) -> Path | None:
    if not lineage.base.startswith(model_sources.BUILTIN):
        return model_sources.locate(lineage.base, config_folder) or model_sources.tokenizer_of(lineage.base)
    from competitors.builtin.bases import build

    folder = scratch / lineage.name
    build(lineage.base.removeprefix(model_sources.BUILTIN), folder)
    return folder


def refuse_hours_without_gpus(config: TournamentConfig, has_gpus: bool, config_file: Path | None = None) -> None:
    """UserError, which names the file where it is known, for a budget of GPU hours where there is no GPU."""
    if config.budget.total_gpu_hours is not None and not has_gpus:
        named = "" if config_file is None else f"{config_file}: "
        raise UserError(f"{named}budget.total_gpu_hours: there is no GPU here; give total_tokens")


def refuse_too_little(config: TournamentConfig, lineage: str, corpus: Corpus, ground: Ground) -> None:
    """UserError for a whole budget that cannot tell the competitors apart, or in equal rounds gives them no step."""
    whole = config.budget.whole
    assert whole is not None
    if config.is_allocated:
        allocation_of(config, lineage, corpus, ground).miniatures(config.competitors)
        return
    entries = sum(recipe.trains for recipe in config.competitors) * config.all_rounds
    least = smallest_of_equal_rounds(config.competitors, config.all_rounds, whole, corpus, ground.has_gpus)
    refuse_less(whole, least, f"{entries} entries in {config.all_rounds} equal rounds, which need a step each")


def allocation_of(config: TournamentConfig, lineage: str, corpus: Corpus, ground: Ground) -> Plan:
    """What shares out the whole budget of a lineage there."""
    assert config.budget.whole is not None
    fixed = (lineage, config.allocation, config.budget.whole, corpus, config.all_rounds)
    return Plan(*fixed, ground.has_gpus, ground.room, len(config.lineages))


def check_budget(config: TournamentConfig, config_file: Path, data: Path, ground: Ground) -> None:
    """UserError for a whole budget with which it could not run, as far as the tokenizers can be had."""
    if config.budget.whole is None:
        return
    try:
        for lineage, corpus in corpora(config, config_file.parent, data):
            if corpus is not None:
                refuse_too_little(config, lineage.name, corpus, ground)
    except UserError as error:
        raise UserError(f"{config_file}: {error}") from error
