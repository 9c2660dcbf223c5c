"""What `tournament new` finds out about a base, the data and the machine, and the sizes that follow from it."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import numpy.typing as npt

from cluster.errors import UserError
from cluster.machine import Machine
from cluster.records import Record
from competitors.builtin.bases import build
from evaluation.compare import FEWEST_GROUPS
from evaluation.data import sources
from evaluation.data.assignment import catalogue
from evaluation.data.conversations import NOT_SINGLE_TURN
from evaluation.data.rendering import Rendered, render
from orchestrator.planning import model_sources, priors
from orchestrator.planning.basis import machine_of, sampled, shape_of
from orchestrator.planning.model_shape import BaseShape
from orchestrator.starting.columns import Templates, find_templates
from orchestrator.starting.pace import Pace, pace_here

HELD_OUT_AT_MOST = 1000
FEWEST_ROWS = 100
LONGEST_ROW = 4096
"""Tokens, of a base that does not say for how many it was made."""
WHOLE_PERCENT = 99
"""Of the rows, what max_tokens is to leave whole."""


class Findings(Record):
    """What was found out, and what follows from it."""

    base: str
    source: str
    columns: list[str]
    templates: Templates
    rows: int
    """Different ones, as a tournament cleans them."""
    tokens_per_row: float
    max_tokens: int
    longest_wanted: int
    """What max_tokens would be if the base had no limit."""
    held_out: int
    machine: Machine
    pace: Pace | None
    """Without a GPU."""


def look(base: str, data: str, address: str | None) -> Findings:
    """Everything that a config for these can be written from. UserError for a base or data that do not do."""
    here = Path.cwd()
    folder = model_sources.check(base, here, "BASE")
    shape = shape_of(base, "BASE", here)
    dataset = sources.load(data, here)
    some = sampled(dataset)
    templates = find_templates(data, some.to_list())
    dropped: Counter[str] = Counter()
    rows = len(catalogue(Rendered(dataset, templates.prompt, templates.completion), None, 0, dropped))
    if rows < FEWEST_ROWS:
        others = f", {dropped[NOT_SINGLE_TURN]:,} {NOT_SINGLE_TURN}" if dropped[NOT_SINGLE_TURN] else ""
        of = f" ({len(dataset):,} in all{others})" if len(dataset) > rows else ""
        why = f"too few to train, choose and report on, which takes {FEWEST_ROWS} at least"
        raise UserError(f"DATA: {data} holds {rows} different {'row' if rows == 1 else 'rows'}{of}: {why}")
    texts = list(render(some, templates.prompt, templates.completion))
    machine = machine_of(address)
    lengths = _lengths(texts, folder, shape)
    wanted = max(32, -(-int(np.percentile(lengths, WHOLE_PERCENT)) // 32) * 32)
    max_tokens = min(wanted, shape.context or LONGEST_ROW)
    return Findings(
        base=base,
        source=data,
        columns=dataset.column_names,
        templates=templates,
        rows=rows,
        tokens_per_row=float(np.minimum(lengths, max_tokens).mean()),
        max_tokens=max_tokens,
        longest_wanted=wanted,
        held_out=held_out_of(rows),
        machine=machine,
        pace=None if machine.gpus else pace_of(base, folder, shape, texts, max_tokens),
    )


def held_out_of(rows: int) -> int:
    """Rows for validation, and as many for test: a tenth, but where that leaves a third to train on as many as titles
    need."""
    fewest = 2 * FEWEST_GROUPS
    return min(HELD_OUT_AT_MOST, max(rows // 10, fewest if rows >= 3 * fewest else 0))


def pace_of(
    base: str,
    folder: Path | None,
    shape: BaseShape,
    texts: Sequence[tuple[str, str]],
    max_tokens: int,
) -> Pace:
    """How fast the base trains here; one that is built in is built for it."""
    if folder is None and base.startswith(model_sources.BUILTIN):
        with TemporaryDirectory() as scratch:
            folder = Path(scratch) / "base"
            build(base.removeprefix(model_sources.BUILTIN), folder)
            return pace_here(folder, shape.parameters, texts, max_tokens)
    return pace_here(folder, shape.parameters, texts, max_tokens)


def _lengths(texts: Sequence[tuple[str, str]], folder: Path | None, shape: BaseShape) -> npt.NDArray[np.float64]:
    """Tokens of each row: by the base's own tokenizer where it is here, else by what its vocabulary suggests."""
    prompts, completions = zip(*texts, strict=True)
    if folder is None:
        size = priors.characters_per_token(shape.vocabulary)
        return np.array([(len(p) + len(c)) / size + 2 for p, c in texts])
    from transformers import AutoTokenizer

    from cluster.encoding import encode

    tokenizer = AutoTokenizer.from_pretrained(folder)
    return np.array([len(row.ids) for row in encode(prompts, completions, tokenizer, 2**30)], np.float64)
