"""Lineages of made-up losses, judged by the very functions that judge real ones: how often is a title false?

Every entry's loss on a row is its parent's and what its training changed there, drawn around the true gain of the
round. A title is false where the new champion's true loss is not below the old one's.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from evaluation.compare import Tail
from evaluation.results import Array, RowResults
from orchestrator.config.sections import Selection
from orchestrator.field.model_ref import BASE, ModelRef
from orchestrator.field.spending import level
from orchestrator.rounds.proving import challenger, prove
from orchestrator.rounds.verdict import Candidate, choose

SPREAD = 0.15
"""Nats per token by which two models' losses on a row differ beyond their means, as in real runs (docs/trust.md)."""

Shape = Callable[[np.random.Generator, int], Array]


def lognormal(sigma: float, sign: float) -> Shape:
    """Skewed to one side; mean 0 and variance 1."""
    mean = np.exp(sigma**2 / 2)
    deviation = mean * np.sqrt(np.exp(sigma**2) - 1)
    return lambda rng, size: sign * (rng.lognormal(0, sigma, size) - mean) / deviation


SHAPES: dict[str, Shape] = {
    "normal": lambda rng, size: rng.standard_normal(size),
    "heavy tails": lambda rng, size: rng.standard_t(3, size) / np.sqrt(3),
    "as skewed as real ones": lognormal(0.44, -1),
    "skewed": lognormal(1.0, -1),
    "very skewed": lognormal(1.5, -1),
    "skewed the other way": lognormal(1.5, 1),
}
"""What an entry's gains look like, per group. Skewed: few rows lose much, most gain a little."""


@dataclass(frozen=True)
class Setup:
    """One kind of tournament."""

    entries: int
    rounds: int
    shape: str = "normal"
    rows: int = 250
    """That choose, and as many that prove."""
    group: int = 1
    """Rows of a group."""
    seed_rule: str = "winner"
    true_gains: Sequence[float] = ()
    """Nats per token of the first rounds; 0 in those that follow."""
    confidence: float = 0.95


@dataclass
class _Model:
    ref: ModelRef
    choosing: RowResults
    proving: RowResults
    true_loss: float


def false_titles(setup: Setup, seed: int) -> tuple[int, int]:
    """False titles of one lineage, and all of them."""
    rng = np.random.default_rng(seed)
    rules = Selection(confidence=setup.confidence, seed=setup.seed_rule)  # type: ignore[arg-type]
    tokens = rng.integers(5, 60, 2 * setup.rows).astype(np.float64)
    champion = parent = _model(BASE, np.zeros(2 * setup.rows), tokens, 0.0, setup)
    known, spent, false, titles, earlier = {BASE: champion}, 0.0, 0, 0, list[Tail]()
    for number in range(1, setup.rounds + 1):
        true_gain = setup.true_gains[number - 1] if number <= len(setup.true_gains) else 0.0
        children = {
            f"e{i}": _child(parent, ModelRef(f"e{i}", number), true_gain, rng, setup) for i in range(setup.entries)
        }
        scored = {name: child.choosing for name, child in children.items()}
        proof, name = None, challenger(champion.choosing, scored)
        if name is not None:
            theirs, ours = ((one.proving, one.choosing) for one in (champion, children[name]))
            proof = prove(
                theirs,
                ours,
                level(1 - setup.confidence, [setup.rounds] * number, spent),
                0.0,
                (),
                list(scored.values()),
                earlier,
            )
        before = Candidate(champion.ref, champion.choosing), Candidate(parent.ref, parent.choosing)
        verdict = choose("l", number, *before, scored, rules, proof, spent)
        known |= {child.ref: child for child in children.values()}
        earlier = [*(one.tail for one in verdict.entries), *earlier]
        titles += verdict.dethroned
        false += verdict.dethroned and known[verdict.champion].true_loss >= champion.true_loss
        champion, parent, spent = known[verdict.champion], known[verdict.seed_next], verdict.spent
        known = {champion.ref: champion, parent.ref: parent}
    return false, titles


def _child(parent: _Model, ref: ModelRef, true_gain: float, rng: np.random.Generator, setup: Setup) -> _Model:
    groups = 2 * setup.rows // setup.group
    gains = np.repeat(SHAPES[setup.shape](rng, groups), setup.group)
    if setup.group > 1:
        gains = gains + 0.3 * rng.standard_normal(len(gains))
    tokens = np.concatenate([parent.choosing.tokens, parent.proving.tokens])
    nats = np.concatenate([parent.choosing.nats, parent.proving.nats]) - tokens * (true_gain + SPREAD * gains)
    return _model(ref, nats, tokens, parent.true_loss - true_gain, setup)


def _model(ref: ModelRef, nats: Array, tokens: Array, true_loss: float, setup: Setup) -> _Model:
    group = np.arange(len(tokens)) // setup.group
    halves = slice(0, setup.rows), slice(setup.rows, None)
    choosing, proving = (RowResults(nats[half], tokens[half], group=group[half]) for half in halves)
    return _Model(ref, choosing, proving, true_loss)
