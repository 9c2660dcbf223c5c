"""A cell: one data set with one seed, made ready for every arm: its splits, its base, and who judges."""

import json
import random
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from cluster.encoding import encode
from cluster.store import LOCAL
from competitors.sft.stream import Counts
from evaluation.data import sources
from evaluation.data.splits import MANIFEST, Manifest, make_splits, read_split
from evaluation.evaluator import ScoringJob, score_model
from evaluation.results import SPLITS
from evaluation.scorecard import Scorecard
from evaluation.scoring import encode_rows, pad_id, score
from tests.experiments.sizes import Setting

BATCH_TOKENS = 16_384


@dataclass(frozen=True)
class Cell:
    """One setting with one seed. `folder` holds its data; arms have folders of their own."""

    setting: Setting
    seed: int
    folder: Path
    side_by_side: int = 2
    """How many trials of a search run at once."""

    @property
    def data(self) -> Path:
        """The splits, as a tournament with this source and seed makes them."""
        return self.folder / "data"

    @property
    def train_data(self) -> Path:
        """The rows that are trained on."""
        return self.data / "train.parquet"

    @property
    def source(self) -> str:
        """What a tournament's `data.source` is."""
        return str(self.folder / "rows.jsonl") if self._is_cut else self.setting.source

    @property
    def _is_cut(self) -> bool:
        return self.setting.rows is not None or self.setting.longest_answer is not None

    @property
    def base(self) -> Path:
        """The base model's folder."""
        spec = self.setting.base
        return self.folder / "base" if spec.startswith("builtin:") else Path(spec)

    def make(self) -> "Cell":
        """Write splits and base, unless they are there."""
        setting = self.setting
        if self._is_cut and not Path(self.source).exists():
            self._cut()
        if not (self.data / MANIFEST).exists():
            rows = sources.load(self.source, self.folder)
            templates = (setting.prompt, setting.completion)
            make_splits(rows, *templates, setting.held_out, setting.held_out, self.seed, self.data, self.source)
        if setting.base.startswith("builtin:") and not self.base.exists():
            from competitors.builtin.bases import build

            build(setting.base.removeprefix("builtin:"), self.base)
        return self

    def _cut(self) -> None:
        setting = self.setting
        rows = list(sources.load(setting.source, self.folder))
        if setting.longest_answer is not None:
            rows = [row for row in rows if len(row["output"]) <= setting.longest_answer]
        if setting.rows is not None:
            rows = random.Random(self.seed).sample(rows, setting.rows + 2 * setting.held_out)
        LOCAL.write_text(Path(self.source), "".join(json.dumps(row) + "\n" for row in rows))

    @property
    def manifest(self) -> Manifest:
        """What became of the rows."""
        return Manifest.read(self.data / MANIFEST)

    @cached_property
    def lengths(self) -> Counts:
        """Tokens of each row that is trained on."""
        from transformers import AutoTokenizer

        rows = read_split(self.train_data)
        texts = [row.prompt for row in rows], [row.completion for row in rows]
        encoded = encode(*texts, AutoTokenizer.from_pretrained(self.base), self.setting.max_tokens)
        return np.array([len(row.ids) for row in encoded if row.completion_tokens])

    def score(self, model: Path, out: Path) -> Scorecard:
        """Score a submission as a tournament does; an adapter stands on the base."""
        adapter = model if (model / "adapter_config.json").exists() else None
        return score_model(
            ScoringJob(
                name=out.name,
                model=self.base if adapter else model,
                adapter=adapter,
                tokenizer=self.base,
                held_out=self.data / "held_out",
                max_tokens=self.setting.max_tokens,
                batch_tokens=BATCH_TOKENS,
                splits=SPLITS,
                out=out,
            )
        )

    @cached_property
    def judge(self) -> "Judge":
        """Who scores a model on the way, as it lies in memory."""
        return Judge(self)


class Judge:
    """Scores models that are being trained, by the same rule and on the same rows."""

    def __init__(self, cell: Cell) -> None:
        from transformers import AutoTokenizer

        tokenizer = AutoTokenizer.from_pretrained(cell.base)
        self.padding = pad_id(tokenizer)
        self.rows = {
            split: encode_rows(
                read_split(cell.data / "held_out" / f"{split}.parquet"), tokenizer, cell.setting.max_tokens
            )
            for split in ("validation", "test")
        }

    def losses(self, model: Any) -> tuple[float, float]:
        """Nats per completion token on validation and test rows. The model stays in the mode it was in."""
        training = model.training
        inner = model.get_base_model() if hasattr(model, "get_base_model") else model
        validation, test = (score(inner, rows, BATCH_TOKENS, self.padding).loss for rows in self.rows.values())
        model.train(training)
        return validation, test
