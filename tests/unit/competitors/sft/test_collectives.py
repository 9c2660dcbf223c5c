"""Alone, what a gang tells each other is the identity."""

from competitors.sft import collectives


def test_alone_everything_is_the_identity():
    assert collectives.rank() == 0
    assert collectives.from_first([1.5, 0.0]) == [1.5, 0.0]
    assert collectives.mean(2.5) == 2.5
