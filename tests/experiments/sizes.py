"""What is run at which size, in one place: data sets, bases, budgets, seeds and arms."""

import hashlib
import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path

RunWith = dict[str, str | int | bool | None]

SHARED = Path(__file__).parents[3] / "shared"
"""Real models and data beside the checkout. They are not always there; `usable` then takes what is built in."""


@dataclass(frozen=True)
class Setting:
    """One column of the table: rows, a base and how many tokens everybody together may train on."""

    name: str
    title: str
    source: str
    total_tokens: int
    base: str = str(SHARED / "models/stories260k")
    prompt: str = "{instruction}\n"
    completion: str = "{output}"
    rows: int | None = None
    """Training rows left of the source, drawn by the seed; None for all."""
    longest_answer: int | None = None
    """Characters of the source's `output`: rows with more are left out."""
    held_out: int = 300
    """Rows of validation, and of test."""
    max_tokens: int = 256
    adapters: bool = False
    """Whether the recipes train LoRA adapters."""

    @property
    def usable(self) -> "Setting":
        """The setting itself where its data and base are there, else the same on what is built in."""
        return self if Path(self.source).exists() and Path(self.base).exists() else self.on_built_in

    @property
    def on_built_in(self) -> "Setting":
        """The same on what is built in: other rows and another base, and so other runs."""
        return replace(
            self,
            title=f"{self.title} (built-in data in its place)",
            source="builtin:quickstart",
            base="builtin:tiny-bpe",
            prompt="{instruction}\n",
            completion="{response}",
            held_out=min(self.held_out, 200),
            longest_answer=None,
        )

    @property
    def run_with(self) -> RunWith:
        """All that its runs depend on but seed, arm and code; paths as from `SHARED`, wherever that is."""
        said: RunWith = {key: value for key, value in asdict(self).items() if key not in ("name", "title")}
        return said | {key: str(said[key]).removeprefix(f"{SHARED}/") for key in ("source", "base")}


def digest(run_with: RunWith) -> str:
    """Short and the same for the same: runs of settings that differ have keys and folders of their own."""
    return hashlib.sha256(json.dumps(run_with, sort_keys=True).encode()).hexdigest()[:8]


@dataclass(frozen=True)
class Size:
    """Settings, seeds, and which arms, by the names of `arms.ARMS` ending in `*` for all that begin so."""

    settings: tuple[Setting, ...]
    seeds: tuple[int, ...]
    arms: tuple[str, ...]
    on_record: bool = True
    """Whether its runs go into `recorded/` and are taken from there; else they are run on each machine anew."""


def _settings(tokens: int, held_out: int) -> tuple[Setting, ...]:
    """LaMini, FLAN, and a cut of LaMini that the budget passes about nine times: 700 rows at a million tokens."""
    common = {"total_tokens": tokens, "held_out": held_out}
    lamini, flan = str(SHARED / "data/lamini/train.jsonl"), str(SHARED / "data/flan_cot/train.jsonl")
    rows = round(700 * tokens / 1_000_000)
    return (
        Setting("lamini", "LaMini", lamini, **common),
        Setting("flan", "FLAN", flan, **common),
        Setting("short", f"{rows} rows of LaMini", lamini, rows=rows, **common),
    )


LONGER = {"lamini": 1.56, "flan": 1.31, "short": 1.46}
"""By setting, how many times as long as the best recipe alone the tournament takes on four workers (`wall.py`, passes
counted): so many budgets have the arms `longer-*`. No part of a run's key: where it changes, they are run `--again`."""
ESSENTIAL = ("alone-*", "random", "asha", "tpe", "pbt", "naive", "ours")
EVERYTHING = (*ESSENTIAL, "ours-*", "grid-*", "wide-*", "longer-*")
GSM8K = Setting("gsm8k", "GSM8K", str(SHARED / "data/gsm8k/train.jsonl"), 600_000)
FRESH = Setting(
    "superni15",
    "Super-NaturalInstructions, 15 tasks",
    str(SHARED / "data/superni15/train.jsonl"),
    600_000,
    prompt="{instruction}\n{input}\n",
    max_tokens=512,
)
BRIEF = Setting(
    "brief",
    "FLAN, answers of 80 characters at most",
    str(SHARED / "data/flan_cot/train.jsonl"),
    600_000,
    longest_answer=80,
)
TERSE = Setting(
    "terse",
    "LaMini, answers of 60 characters at most",
    str(SHARED / "data/lamini/train.jsonl"),
    300_000,
    longest_answer=60,
)
LORA = Setting(
    "lora",
    "LaMini, LoRA on stories15m",
    str(SHARED / "data/lamini/train.jsonl"),
    100_000,
    base=str(SHARED / "models/stories15m"),
    held_out=200,
    max_tokens=96,  # short rows, so that few tokens are many steps
    adapters=True,
)

SIZES = {
    # One data set and seed, to see quickly where a change leads.
    "slice": Size(_settings(300_000, 300)[:1], (0,), EVERYTHING, on_record=False),
    # Within an hour on two cores.
    "small": Size(_settings(200_000, 200), (0, 1, 2), ESSENTIAL, on_record=False),
    # The table of docs/experiments.md: hours.
    "full": Size(_settings(600_000, 300), (0, 1, 2), EVERYTHING),
    "lora": Size((LORA,), (0, 1, 2), (*ESSENTIAL, "ours-*")),
    # Each not looked at before the rule was settled that it checks: the first two changed it.
    "fresh": Size((FRESH, BRIEF, GSM8K, TERSE), (0, 1, 2), ESSENTIAL),
}
