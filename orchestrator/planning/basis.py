"""What `competitors: auto` starts from, looked up: the bases' shapes, the data's size, the budget, the hardware."""

import importlib.util
import os
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING

from cluster.cluster_file import nodes_of, read_cluster
from cluster.errors import UserError
from cluster.machine import Machine, largest_of, machine_here
from competitors.kinds import Recipe
from evaluation.data import sources
from evaluation.data.conversations import NOT_SINGLE_TURN
from evaluation.data.rendering import render
from orchestrator.config.tournament import TournamentConfig
from orchestrator.field.allocation import SMALLEST_AT_MOST, STEPS_OF_A_MINIATURE, Plan
from orchestrator.field.whole_budget import Corpus
from orchestrator.planning import model_sources, priors
from orchestrator.planning.auto import Basis, make_recipes
from orchestrator.planning.model_shape import BaseShape, describe_base, describe_folder

if TYPE_CHECKING:
    from datasets import Dataset

SAMPLED_ROWS = 2000
"""Rows whose length is looked at, spread over the data."""
FEWEST_RECIPES = 2
ROOM = 1.5
"""Times the tokens that are estimated from characters: what a field is to be affordable with."""


def make_field(
    config: TournamentConfig, config_folder: Path, address: str | None = None, cluster_file: Path | None = None
) -> list[Recipe]:
    """The field of a config whose competitors are `auto`, for the cluster on paper or at `address`, or this machine.

    Reads each base's config.json, not its weights, and the data. UserError for what cannot be read.
    """
    bases = [shape_of(one.base, f"lineages[{one.name}].base", config_folder) for one in config.lineages]
    rows, characters = _data_size(config, config_folder)
    largest = max(bases, key=lambda base: base.parameters)
    tokens_per_row = min(characters / priors.characters_per_token(largest.vocabulary) + 2, config.data.max_tokens)
    basis = Basis(
        bases=bases,
        rows=max(rows - config.held_out_rows, 1),
        tokens_per_row=tokens_per_row,
        max_tokens=config.data.max_tokens,
        line_tokens=_line_tokens(config),
        spans_rounds=config.budget.whole is None,
        machine=machine_on_paper(cluster_file) if cluster_file else machine_of(address or config.cluster.address),
        has_four_bits=importlib.util.find_spec("bitsandbytes") is not None,
    )
    return _affordable(list(make_recipes(basis)), config, basis)


def _affordable(recipes: list[Recipe], config: TournamentConfig, basis: Basis) -> list[Recipe]:
    """As many of `recipes`, the first ones, as a whole budget can tell apart; FEWEST_RECIPES at least."""
    if not config.is_allocated or config.budget.whole is None:
        return recipes
    corpus = Corpus(rows=basis.rows, tokens=round(basis.rows * basis.tokens_per_row * ROOM))
    has_gpus = basis.machine.gpus > 0
    race = Plan("auto", config.allocation, config.budget.whole, corpus, config.all_rounds, has_gpus)
    for count in range(len(recipes), FEWEST_RECIPES, -1):
        try:
            race.miniatures(recipes[:count])
        except UserError:
            continue
        return recipes[:count]
    return recipes[:FEWEST_RECIPES]


def fewest_tokens(tokens_per_row: float) -> float:
    """The smallest whole budget that tells FEWEST_RECIPES recipes apart, where a step takes as little as a row."""
    return FEWEST_RECIPES * STEPS_OF_A_MINIATURE * tokens_per_row / SMALLEST_AT_MOST


def shape_of(spec: str, key: str, config_folder: Path) -> BaseShape:
    """The shape of a base, from its config.json alone where its weights are not here. UserError that names `key`."""
    folder = model_sources.locate(spec, config_folder)
    if spec.startswith(model_sources.BUILTIN):
        model_sources.check(spec, config_folder, key)
        shape = describe_base(spec, config_folder)
    else:
        described = folder or model_sources.config_of(spec, key).parent
        try:
            shape = describe_folder(described)
        except UserError as error:
            raise UserError(f"{key}: {error}") from error
    if shape is None:
        is_there = folder is None or (folder / "config.json").is_file()
        lacks = "config.json that says its layers, heads, width and vocabulary" if is_there else "config.json"
        raise UserError(f"{key}: {spec} has no {lacks}, so no field can be made for it; list competitors")
    return shape


def machine_of(address: str | None) -> Machine:
    """The machine to train on: the largest of the cluster that a tournament would join, else this one."""
    from cluster.on_ray.connect import connected
    from cluster.on_ray.nodes import largest_machine

    address = address or os.environ.get("RAY_ADDRESS")
    if address in (None, "local"):
        return machine_here()
    with connected(address):
        return largest_machine()


def machine_on_paper(cluster_file: Path) -> Machine:
    """The largest of a cluster that is not there."""
    return largest_of(nodes_of(read_cluster(cluster_file)))


def _data_size(config: TournamentConfig, config_folder: Path) -> tuple[int, float]:
    """How many rows there are, and the characters of one on average."""
    rows = sources.load(config.data.source, config_folder)
    some = sampled(rows)
    texts = render(some, config.data.prompt, config.data.completion)
    lengths = [len(prompt) + len(completion) for prompt, completion in texts]
    if not lengths:
        raise UserError(f"data: all of {len(some)} rows looked at are dropped: {NOT_SINGLE_TURN}")
    return len(rows) * len(lengths) // len(some), fmean(lengths)


def sampled(rows: "Dataset") -> "Dataset":
    """About SAMPLED_ROWS of `rows`, spread over them."""
    return rows.select(range(0, len(rows), max(len(rows) // SAMPLED_ROWS, 1)))


def _line_tokens(config: TournamentConfig) -> int | None:
    """What one recipe may come to train on: most of the whole budget, or its own of every round."""
    budget = config.budget
    if budget.total_tokens is not None:
        return budget.total_tokens
    return None if budget.tokens is None else budget.tokens * config.all_rounds
