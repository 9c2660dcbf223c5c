"""What is said of the workers that a gang has lost."""

import pytest
from ray.exceptions import ActorDiedError, OutOfMemoryError, RayActorError
from ray.train.v2.api.exceptions import WorkerGroupError

from cluster.errors import ClusterTrouble, Forfeit
from competitors.contract import Brief
from competitors.sft import ray_train
from competitors.sft.ray_train import what_was_lost
from tests.unit.competitors.making import sft_recipe

DIED = ActorDiedError()
NODE_DIED = RayActorError(error_msg="The actor died because its node has died. Node Id: 12")
NO_MEMORY = OutOfMemoryError("Task was killed due to the node running low on memory.")
ECHO = RuntimeError("Connection closed by peer [127.0.0.1]:4711")


@pytest.mark.parametrize(
    ("failures", "words"),
    [
        ({0: ECHO, 1: DIED}, "worker 1: its process ended"),
        ({2: NODE_DIED, 0: ECHO, 1: DIED}, "worker 1: its process ended; worker 2: its node was lost"),
        ({0: RayActorError(preempted=True)}, "worker 0: its node was lost"),
        ({0: NO_MEMORY}, "worker 0: was ended by Ray, since its node ran low on memory"),
        (
            {1: ECHO, 0: RuntimeError("NCCL error\nunhandled")},
            "its workers lost touch with each other: worker 0 said NCCL error unhandled",
        ),
    ],
)
def test_what_was_lost_is_named(failures: dict[int, Exception], words: str):
    assert what_was_lost(failures) == words


class Trainer:
    """A gang that loses the same each time."""

    starts = 0

    def __init__(self, *failures: Exception) -> None:
        self.failures = dict(enumerate(failures))

    def fit(self) -> None:
        Trainer.starts += 1
        raise WorkerGroupError("lost", self.failures)


@pytest.mark.parametrize(
    ("failures", "kind", "words", "starts"),
    [
        ([ECHO, DIED], Forfeit, "worker 1: its process ended, the last of 3 times", 3),
        ([ECHO, NODE_DIED], ClusterTrouble, "a: worker 1: its node was lost (3 times)", 3),
        ([ECHO, ValueError("its own")], ValueError, "its own", 1),
    ],
)
def test_whose_failure_it_is_in_the_end(
    brief: Brief, monkeypatch: pytest.MonkeyPatch, failures: list[Exception], kind: type, words: str, starts: int
):
    monkeypatch.setattr(ray_train, "_trainer", lambda brief, recipe, attempt: Trainer(*failures))
    Trainer.starts = 0
    with pytest.raises(kind) as raised:
        ray_train.train_together(brief, sft_recipe(resources={"workers": 2}))
    assert str(raised.value) == words
    assert Trainer.starts == starts
