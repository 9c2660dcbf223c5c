"""How many tokens a second a base trains on here without a GPU, so that a budget of hours becomes one of tokens."""

import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cluster.errors import Forfeit, UserError
from cluster.records import Record
from cluster.resources import Resources
from competitors.contract import Allowance, Brief
from competitors.sft.recipe import SftRecipe

TIMED_SECONDS = 10.0
TIMED_BATCH = 8
CPUS = 1
"""What an entry of an automatic field holds: the race has one on each, and a line that grows over more ends sooner."""
LARGEST_TIMED = 300_000_000
"""Parameters. Of a larger base one step takes longer than anybody wants to wait."""
FLOPS_PER_TOKEN_AND_PARAMETER = 6.0
"""Forward and backward (Kaplan et al. 2020, "Scaling Laws for Neural Language Models", 2.1)."""
EFFICIENCY = 0.5
"""Of a large matrix product's speed, what training reaches on a CPU."""


class Pace(Record):
    """Training tokens a second of one process, and how that was found out."""

    tokens_per_second: float
    found_by: str


def pace_here(base: Path | None, parameters: int, rows: Sequence[tuple[str, str]], max_tokens: int) -> Pace:
    """The pace of a base of `parameters`: timed where its folder is here and it is small, else by its FLOPs.

    `rows` are prompts and completions to train on. UserError where the base cannot be trained at all.
    """
    if base is None or parameters > LARGEST_TIMED:
        speed = _matrix_flops_per_second()
        return Pace(
            tokens_per_second=speed * EFFICIENCY / (FLOPS_PER_TOKEN_AND_PARAMETER * parameters),
            found_by=f"estimated: 6 FLOPs a parameter and token at half of the {speed / 1e9:.0f} GFLOPS that a matrix"
            " product reaches here",
        )
    tokens, seconds = _timed(base, rows, max_tokens)
    return Pace(tokens_per_second=tokens / seconds, found_by=f"measured over {seconds:.0f} s of full fine-tuning here")


def _timed(base: Path, rows: Sequence[tuple[str, str]], max_tokens: int) -> tuple[int, float]:
    """Training tokens and seconds of some real steps; the first, which warms up, only where it is nearly all."""
    import pyarrow
    import pyarrow.parquet

    from competitors.sft.training import train

    recipe = SftRecipe(name="pace", kind="sft", learning_rate=1e-6, batch_size=TIMED_BATCH, checkpoints=0)
    steps: list[tuple[int, float]] = []
    with tempfile.TemporaryDirectory() as scratch:
        table = {"prompt": [prompt for prompt, _ in rows], "completion": [completion for _, completion in rows]}
        pyarrow.parquet.write_table(pyarrow.table(table), Path(scratch) / "train.parquet")
        output = Path(scratch) / "entry" / "submission"
        output.mkdir(parents=True)
        brief = Brief(
            tournament="new",
            lineage="new",
            round=1,
            competitor=recipe.name,
            seed_model=base,
            seed_sha256="",
            seed_continuation=None,
            train_data=Path(scratch) / "train.parquet",
            max_tokens=max_tokens,
            budget=Allowance(seconds=TIMED_SECONDS, steps=len(rows) // TIMED_BATCH),
            progress=(0.0, 1.0),
            output_dir=output,
            random_seed=0,
            resources=Resources(cpus=CPUS, gpus=0),
        )

        def note(event: dict[str, Any]) -> None:
            if event["event"] == "step":
                steps.append((event["tokens"], event["seconds"]))

        try:
            train(brief, recipe, note)
        except Forfeit as reason:
            raise UserError(f"BASE: {base} cannot be trained on these rows: {reason}") from reason
    (first_tokens, first_seconds), (last_tokens, last_seconds) = steps[0], steps[-1]
    if last_seconds > 2 * first_seconds:
        return last_tokens - first_tokens, last_seconds - first_seconds
    return last_tokens, max(last_seconds, 1e-3)


def _matrix_flops_per_second(size: int = 1024, seconds: float = 0.5) -> float:
    import torch

    torch.set_num_threads(CPUS)
    matrix = torch.rand(size, size)
    matrix @ matrix
    count, began = 0, time.monotonic()
    while time.monotonic() - began < seconds:
        matrix @ matrix
        count += 1
    return 2.0 * size**3 * count / (time.monotonic() - began)
