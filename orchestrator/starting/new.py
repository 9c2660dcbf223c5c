"""Writing a config for a base, a data file and a budget of time, with what was found out about them as comments."""

import json
import math
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import yaml

from cluster.errors import UserError
from cluster.machine import Machine
from cluster.store import LOCAL
from cluster.text import plain
from competitors.capture import captured_output
from evaluation.data import sources
from orchestrator.config.schema import MODELINE, SCHEMA_FILE, schema_text
from orchestrator.planning import model_sources
from orchestrator.planning.basis import fewest_tokens
from orchestrator.starting.findings import WHOLE_PERCENT, Findings, look

ROUNDS = 5
TRAINING_SHARE = 0.8
"""Of the time; the rest goes to starting, scoring and merging."""
GENERIC_NAMES = ("train", "data", "rows", "raw", "dataset", "all", "*")

PARTS = re.compile(r"(\d+(?:\.\d+)?)\s*(d|h|min|m|s)")
SECONDS = {"d": 86_400, "h": 3_600, "min": 60, "m": 60, "s": 1}


@contextmanager
def written_config(base: str, data: str, budget: str, out: Path | None, address: str | None) -> Iterator[Path]:
    """Write a config for `base` and `data` and the budget, a time such as 2h, to `out`; yields where it lies, and takes
    it away where the block finds something wrong with it.

    The schema is written beside it. UserError for whatever is wrong with the call, and where the file is there.
    """
    seconds = seconds_of(budget)
    name = f"{_base_name(base)[:30]}-{_slug(_data_name(data))[:29]}"
    out = out or Path(f"{name}.yaml")
    if out.exists():
        raise UserError(f"{out}: is there already: give another --out, or remove it")
    if not out.parent.is_dir():
        raise UserError(f"{out}: there is no folder {out.parent}")
    with TemporaryDirectory() as scratch, captured_output(Path(scratch) / "log.txt"):  # what libraries say on the way
        found = look(base, data, address)
    if out.absolute().parent != Path.cwd():
        found = _with_absolute_paths(found)
    _refuse_too_little(found, seconds, budget)
    schema = out.absolute().parent / SCHEMA_FILE
    ours = [out] if schema.exists() else [out, schema]
    try:
        LOCAL.write_text(out.absolute(), config_text(found, seconds, name, out, address))
        LOCAL.write_text(schema, schema_text())
        yield out
    except UserError:
        for file in ours:
            file.unlink(missing_ok=True)
        raise


def seconds_of(budget: str) -> float:
    """The seconds of a time such as 2h, 90min or 1h30m. UserError for anything else."""
    text = budget.strip().lower()
    parts = PARTS.findall(text)
    seconds = sum(float(count) * SECONDS[unit] for count, unit in parts)
    if PARTS.sub("", text).strip() or seconds <= 0:
        raise UserError(f"--budget {budget}: give a time, such as 2h, 90min or 1h30m")
    return seconds


def _refuse_too_little(found: Findings, seconds: float, budget: str) -> None:
    """UserError where the time is not enough to find out which of two recipes is better."""
    if found.pace is None:
        return
    needed = math.ceil(fewest_tokens(found.tokens_per_row) / (found.pace.tokens_per_second * TRAINING_SHARE))
    if seconds < needed:
        pace = f"{found.pace.tokens_per_second:,.0f} tokens a second"
        least = f"{needed} s" if needed < 120 else f"{math.ceil(needed / 60)} min"
        raise UserError(f"--budget {budget}: too little: it takes {least} to tell two recipes apart, at {pace}")


def config_text(found: Findings, seconds: float, name: str, out: Path, address: str | None) -> str:
    """The config's YAML."""
    cut = (
        f"{WHOLE_PERCENT} of 100 rows are whole at this length; longer ones are cut on the right"
        if found.max_tokens == found.longest_wanted
        else f"all that the base was made for; {found.longest_wanted} would leave {WHOLE_PERCENT} of 100 rows whole"
    )
    budget, why = _budget(found, seconds)
    columns = plain(", ".join(found.columns), 160)
    lines = [
        MODELINE,
        f"# Written by `tournament new` for {_machine_in_words(found.machine)}. docs/config.md has every key.",
        f"# `tournament plan {out}` shows what would run, `tournament run {out}` runs it, or goes on with it.",
        f"name: {_quoted(name)}",
        "seed: 0  # another one: other rows held out, other orders of the data",
        "data:",
        f"  source: {_quoted(found.source)}  # {found.rows:,} different rows; columns: {columns}",
        f"  prompt: {_quoted(found.templates.prompt)}  # what the model is given, {{column}} by column",
        f"  completion: {_quoted(found.templates.completion)}  # what it is to write: only this is learned and scored",
        f"  max_tokens: {found.max_tokens}  # {cut}",
        f"  validation: {found.held_out}  # rows to choose by, never trained on",
        f"  test: {found.held_out}  # rows to report on, never chosen by",
        "lineages:  # more bases can stand here: each runs rounds of its own, with the budget once more",
        f"  - {{name: {_quoted(_base_name(found.base))}, base: {_quoted(found.base)}}}",
        "# references:  # models that are only scored, such as the one you use today",
        "#   - {name: today's, model: some/model, prompt: chat}",
        f"rounds: {ROUNDS}  # a brief race of all, a climb of the winner's rate, and all that is left for one of them",
        *(f"# {line}" for line in why),
        f"budget: {budget}",
        "# A field for this base, these data, the budget and the hardware: `tournament plan` shows it. A list of",
        "# recipes of your own may stand in its place: docs/competitors.",
        "competitors: auto",
        *([] if address is None else [f"cluster: {{address: {_quoted(address)}}}"]),
    ]
    return "\n".join(lines) + "\n"


def _budget(found: Findings, seconds: float) -> tuple[str, list[str]]:
    """The budget, and how it came about in lines of words."""
    if found.pace is None:
        gpus = found.machine.gpus
        return f"{{total_gpu_hours: {seconds / 3600 * gpus:g}}}", [
            f"The whole for a lineage: {_time(seconds)} of {gpus:g} GPUs."
        ]
    tokens = max(int(float(f"{seconds * TRAINING_SHARE * found.pace.tokens_per_second:.2g}")), 1)
    rows = found.rows - 2 * found.held_out
    passes = tokens / (rows * found.tokens_per_row)
    return f"{{total_tokens: {tokens:_}}}", [
        f"The whole for a lineage: {_time(seconds)}, {TRAINING_SHARE:.0%} of it training, at"
        f" {found.pace.tokens_per_second:,.0f} tokens a second in one process",
        f"({found.pace.found_by}). That is {passes:.1f} times the training rows.",
    ]


def _time(seconds: float) -> str:
    return f"{seconds / 3600:g} h" if seconds >= 3600 else f"{seconds / 60:g} min"


def _machine_in_words(machine: Machine) -> str:
    if not machine.gpus:
        return f"a machine of {machine.cpus:g} CPUs, {machine.memory_gb:.0f} GB and no GPU"
    size = f" of {machine.gpu_memory_gb:.0f} GB" if machine.gpu_memory_gb else ""
    return f"{machine.gpus:g} GPUs{size}"


def _with_absolute_paths(found: Findings) -> Findings:
    """The same for a config that lies elsewhere than here."""
    changes = {}
    if (folder := model_sources.locate(found.base, Path.cwd())) is not None:
        changes["base"] = str(folder)
    if not found.source.startswith((sources.HUB, sources.BUILTIN)):
        changes["source"] = str(Path(found.source).expanduser().absolute())
    return found.model_copy(update=changes)


def _base_name(base: str) -> str:
    return _slug(Path(base.removeprefix(model_sources.BUILTIN)).name)[:60]


def _data_name(data: str) -> str:
    """A word for the data: the file's name, its folder's where that says nothing, the set's on the hub."""
    if data.startswith((sources.HUB, sources.BUILTIN)):
        return re.split(r"[:@]", data.split("/")[-1].removeprefix(sources.BUILTIN))[0]
    path = Path(data).absolute()
    return path.parent.name if path.stem.lower() in GENERIC_NAMES else path.stem


def _slug(text: str) -> str:
    """As a config's names may be."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", text).strip("-._") or "x"


def _quoted(text: str) -> str:
    """A string as YAML reads it: plain where it may be, else as JSON."""
    is_plain = re.fullmatch(r"[A-Za-z./][A-Za-z0-9._/-]*", text) and yaml.safe_load(text) == text
    return text if is_plain else json.dumps(text, ensure_ascii=False)
