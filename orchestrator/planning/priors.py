"""What is known beforehand of good recipes, each number with where it comes from: what `competitors: auto` starts from.

A race then finds out which of them holds for this base and these data, so they need to be right within a factor.

- *Rate of full fine-tuning, by width.* 5e-5 · (2000 / width)^0.781 is the fit of Thinking Machines for Llama's
  family from 1B to 70B (tinker-cookbook, `hyperparam_utils.get_lr`, after Schulman et al., "LoRA Without Regret",
  2025). Below a width of 2,000 nobody has published one: the other points are ours (docs/LOG.md, 2026-11-25).
- *Rate of LoRA*: ten times that of full fine-tuning, whatever the rank, where alpha stays at 32 and every linear layer
  has an adapter (the same study); at small widths less (ours). Hayou et al. 2024 (LoRA+): B wants more than A.
- *Batch*: the best rate goes by the square root of the batch for Adam (Malladi et al. 2022); a small batch loses
  nothing but time, and LoRA suffers from large ones (LoRA Without Regret). So as many rows as leave STEPS steps.
- *Rank*: instruction data hold about a bit a token, an adapter about two a parameter (the same study, after Allen-Zhu
  and Li 2024), so the rank that has a parameter for two tokens.
- *Four bits* where the weights alone are too much: QLoRA (Dettmers et al. 2023) trains as well as LoRA in 16 bits.
- *Characters a token*, by the vocabulary: a fit to English text through three tokenizers (512, 32,000 and 128,256).
"""

import itertools
import math
from collections.abc import Sequence

FULL_RATES = ((64, 4.0e-3), (288, 3.0e-4), (2000, 5.0e-5))
"""(width, best rate of full fine-tuning) with AdamW at REFERENCE_BATCH rows a step; the last is the published fit."""
LORA_FACTORS = ((64, 3.0), (2000, 10.0))
"""(width, LoRA's best rate in multiples of full fine-tuning's); the last is published, and the same for all above."""
EXPONENT_OF_WIDTH = 0.781
"""Of full fine-tuning's rate beyond the largest width."""
REFERENCE_BATCH = 16
SPREAD = 3.0
"""Between two neighbouring rates of a field: the race finds the nearest, the climb what lies beyond its ends."""
MOST_RATES = 5
LORA_ALPHA = 32
LORA_PLUS_RATIO = 16.0
TOKENS_PER_PARAMETER = 2.0
RANKS = (16, 128)
STEPS = 400
BATCHES = (4, 32)


def full_rate(width: int, batch: int) -> float:
    """The best rate of full fine-tuning to be expected of a base of this width at `batch` rows a step."""
    widest = FULL_RATES[-1][0]
    beyond = (widest / width) ** EXPONENT_OF_WIDTH if width > widest else 1.0
    return float(_between(FULL_RATES, width) * beyond * math.sqrt(batch / REFERENCE_BATCH))


def lora_rate(width: int, batch: int) -> float:
    """The best rate of LoRA on every linear layer, whatever its rank, with alpha at LORA_ALPHA."""
    return full_rate(width, batch) * _between(LORA_FACTORS, width)


def _between(points: Sequence[tuple[int, float]], width: int) -> float:
    """The value at `width`: between two points by a power of the width, beyond the ends as at the end."""
    for (left, first), (right, last) in itertools.pairwise(points):
        if left <= width < right:
            return float(first * (width / left) ** (math.log(last / first) / math.log(right / left)))
    return points[0][1] if width <= points[0][0] else points[-1][1]


def batch_for(line_tokens: int | None, tokens_per_row: float) -> int:
    """Rows of an optimizer step: the largest power of two with which `line_tokens` make STEPS steps, within BATCHES."""
    if line_tokens is None:
        return REFERENCE_BATCH
    rows = line_tokens / max(tokens_per_row, 1.0) / STEPS
    return _power_of_two(rows, *BATCHES)


def rank_for(tokens: float, sizes_per_rank: int, width: int) -> int:
    """The rank that holds `tokens` of training data: `sizes_per_rank` parameters of the adapter come with each."""
    wanted = tokens / TOKENS_PER_PARAMETER / max(sizes_per_rank, 1)
    low, high = RANKS
    return _power_of_two(2 * wanted - 1e-9, min(low, max(width // 2, 1)), min(high, max(width // 2, 1)))


def characters_per_token(vocabulary: int) -> float:
    """Of English text, for a tokenizer of that many words."""
    return max(1.0, 0.33 * math.log2(max(vocabulary, 2)) - 0.9)


def ladder(low: float, high: float) -> list[float]:
    """Rates a factor of SPREAD or less apart, from one below `low` to one above `high`, rounded to two digits.

    MOST_RATES of them at most: where `low` and `high` lie far apart, so do they.
    """
    bottom, top = low / SPREAD, high * SPREAD
    steps = min(math.ceil(math.log(top / bottom) / math.log(SPREAD) - 1e-9), MOST_RATES - 1)
    return [rounded(bottom * (top / bottom) ** (step / steps)) for step in range(steps + 1)]


def pair(low: float, high: float) -> list[float]:
    """Two rates, a factor of SPREAD apart around one, or further where `low` and `high` are."""
    return [rounded(low / SPREAD**0.5), rounded(high * SPREAD**0.5)]


def rounded(rate: float) -> float:
    """To two digits."""
    return float(f"{rate:.2g}")


def _power_of_two(value: float, low: int, high: int) -> int:
    """The largest power of two that is at most `value`, within bounds."""
    exponent = math.floor(math.log2(value)) if value >= 1 else 0
    return int(min(max(2**exponent, low), high))
