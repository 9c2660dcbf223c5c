"""The names of splits, and how many rows each held-out one gets."""

Split = str
"""`validation` chooses and `proof` proves titles: the two halves of the rows that `data.validation` asks for.
`validation-2`, …: what chooses in the place of `validation` in later rounds, where rows rotate. `test` only reports.
Not held out: `train`, and `slice`, rows that no competitor trains on, by which soups choose; often not there."""


def choosing(turn: int) -> Split:
    """The split that chooses in a turn, counted from 0."""
    return f"validation-{turn + 1}" if turn else "validation"


def held_out_splits(validation: int, test: int, turns: int = 1) -> dict[Split, int]:
    """How many rows each held-out split gets. Further turns come last: all others are the same rows without them."""
    choose, prove = validation - validation // 2, validation // 2
    once = {"validation": choose, "proof": prove, "test": test}
    return once | {choosing(turn): choose for turn in range(1, turns)}
