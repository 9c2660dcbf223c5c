"""The small records that the loop itself leaves in the run directory."""

from pathlib import Path

from cluster.records import Record


class Seed(Record):
    """seed.json, champion.json: a full model folder and where it comes from. In round 0, the base."""

    label: str
    """`base`, or `competitor@round`."""
    path: Path
    sha256: str
    continuation: Path | None = None


class Rejection(Record):
    """rejected.json: a submission that failed inspection, and why."""

    reason: str


class Sample(Record):
    """One prompt, what is right, and what the model writes."""

    prompt: str
    expected: str
    completion: str


class Samples(Record):
    """samples.json."""

    samples: list[Sample]
