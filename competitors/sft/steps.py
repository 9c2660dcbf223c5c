"""What one worker's forward passes take, optimizer step by optimizer step: the trainer's data loader."""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from competitors.sft.stream import IGNORED, Counts, Stream

Batch = dict[str, Any]
Cut = Callable[[Counts], list[Counts]]
"""From the lengths of a step's rows to their places, (rows, workers) for each pass: see passes.py."""


class Step(NamedTuple):
    """One optimizer step, as one worker sees it."""

    passes: list[Batch]
    predicted: int
    """Completion tokens that the whole step, of all workers, predicts: what its loss is divided by."""


class Steps:
    """The steps of a stream from number `first` on, each made when it is asked for."""

    def __init__(
        self, stream: Stream, first: int, rank: int, cut: Cut, collate: Callable[[list[Batch]], Batch]
    ) -> None:
        self.first, self.steps, self.rank, self.cut, self.collate = first, stream.steps, rank, cut, collate
        self.rows_per_step = len(stream.sequences) // stream.steps
        self.ids, self.ends = _flat(stream.sequences, "input_ids")
        self.labels, _ = _flat(stream.sequences, "labels")
        packed = "seq_lengths" in stream.sequences.column_names
        self.parts = _flat(stream.sequences, "seq_lengths") if packed else None
        # What stands first in its row is predicted by nothing.
        starts = self.ends[:-1] if self.parts is None else np.cumsum(self.parts[0]) - self.parts[0]
        is_predicted = self.labels != IGNORED
        is_predicted[starts] = False
        self.predicted_until = np.concatenate([[0], np.cumsum(is_predicted)])[self.ends]

    def __len__(self) -> int:
        return self.steps - self.first

    def __iter__(self) -> Iterator[Step]:
        for number in range(self.first, self.steps):
            yield self._step(number * self.rows_per_step)

    def _step(self, first: int) -> Step:
        last = first + self.rows_per_step
        passes = []
        for places in self.cut(np.diff(self.ends[first : last + 1])):
            passes.append(self._batch([first + int(place) for place in places[:, self.rank]]))
        return Step(passes, int(self.predicted_until[last] - self.predicted_until[first]))

    def _batch(self, rows: list[int]) -> Batch:
        examples = []
        for row in rows:
            start, end = self.ends[row], self.ends[row + 1]
            example: Batch = {"input_ids": self.ids[start:end], "labels": self.labels[start:end]}
            if self.parts is not None:
                lengths, ends = self.parts
                example["seq_lengths"] = lengths[ends[row] : ends[row + 1]].tolist()
            examples.append(example)
        batch = self.collate(examples)
        if "attention_mask" in batch and batch["attention_mask"].all():
            del batch["attention_mask"]  # nothing is padded: the causal mask alone, for which kernels are faster
        return batch


def _flat(sequences: Any, column: str) -> tuple[npt.NDArray[np.int64], Counts]:
    """All numbers of a column of lists, one after the other, and where each row ends, with a 0 before."""
    lists = sequences.with_format("arrow")[:][column].combine_chunks()
    lengths = lists.value_lengths().to_numpy().astype(np.int64)
    return lists.flatten().to_numpy().astype(np.int64), np.concatenate([[0], np.cumsum(lengths)])
