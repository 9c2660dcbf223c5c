"""Everything that is asked of Ray's private modules, each with the reason why no public call does.

Nothing of Ray is imported before it is asked for.
"""

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ray.job_submission import JobSubmissionClient

TOKEN_LOGGER = "ray._private.authentication.authentication_token_setup"
"""Who warns that a Ray of our own has made itself a token. Ray's `logging_level` does not reach it."""


def resolved_address(address: str) -> str:
    """host:port of an address as ray.init takes it, empty where no cluster was started here.

    ValueError if it is none. Private, but what `auto` stands for is known to Ray alone.
    """
    from ray._private.services import canonicalize_bootstrap_address

    return canonicalize_bootstrap_address(address) or ""


def own_processes() -> list[tuple[str, subprocess.Popen[bytes]]]:
    """What ray.init started in this process, each with its kind, such as `raylet`; nothing where it joined a cluster.

    Private, but no public call says which processes they are.
    """
    from ray._private import worker

    node = worker._global_node
    return [] if node is None else list(node.live_processes())


def server_version(client: "JobSubmissionClient") -> str:
    """Which Ray the cluster of a client runs.

    Private, but the public get_version() gives that of the interface.
    """
    return str(client._server_ray_version)


def logs_folder() -> Path:
    """Where the Ray of this worker's node keeps its logs: a file there goes when they go.

    Private, but no public call names a node's session folder, and not every node has the same.
    """
    from ray._private.worker import global_worker

    return Path(global_worker.node.get_logs_dir_path())


def is_health_check_failure(error: BaseException) -> bool:
    """Whether Ray Train says by `error` that a worker of its group no longer answers.

    Private, but that is the type in the public WorkerGroupError.worker_failures, and it has no public base.
    """
    from ray.train.v2._internal.exceptions import WorkerHealthCheckFailedError

    return isinstance(error, WorkerHealthCheckFailedError)


def train_within(group: Any) -> Any:
    """A callback for Ray Train whose controller starts its workers in `group`, and leaves it to whoever lent it.

    Private, but Ray Train takes no placement group: it makes one of its own for each attempt. Its controller is told by
    a callback, which it takes from the run's config and calls before it makes one.
    """
    from ray.train.v2._internal.execution.callback import ControllerCallback
    from ray.train.v2._internal.execution.worker_group import worker_group
    from ray.train.v2._internal.execution.worker_group.placement_group_handle import DefaultPlacementGroupHandle

    class Lent(DefaultPlacementGroupHandle):  # type: ignore[misc]
        def shutdown(self) -> None:
            """The group is not the controller's to remove; its workers have been ended before this."""

    class LendsGroup(ControllerCallback):  # type: ignore[misc]
        def after_controller_start(self, train_run_context: Any) -> None:
            del train_run_context
            from ray.train.v2._internal.execution.worker_group import worker_group

            worker_group.placement_group = lambda **asked: group
            worker_group.DefaultPlacementGroupHandle = Lent

    assert {"placement_group", "DefaultPlacementGroupHandle"} <= vars(worker_group).keys()
    return LendsGroup()


@contextmanager
def tune_within(group: Any) -> Iterator[None]:
    """While the block lasts, each trial of Ray Tune takes a bundle of `group`, of which there are enough.

    Private, but a Tuner has no option for its resource manager, and the one that it takes asks Ray for a placement
    group for each trial.
    """
    from ray.air.execution.resources import ResourceManager
    from ray.air.execution.resources.placement_group import PlacementGroupAcquiredResources
    from ray.tune.execution import tune_controller

    @dataclass
    class Bundle(PlacementGroupAcquiredResources):  # type: ignore[misc]
        index: int

        def _annotate_remote_entity(self, entity: Any, bundle: dict[str, float], bundle_index: int) -> Any:
            del bundle_index  # of the trial's own bundles, of which there is one
            return super()._annotate_remote_entity(entity, bundle, self.index)

    class Lent(ResourceManager):  # type: ignore[misc]
        def __init__(self) -> None:
            self._free = list(range(group.bundle_count))
            self._requests: list[Any] = []

        def request_resources(self, resource_request: Any) -> None:
            self._requests.append(resource_request)

        def cancel_resource_request(self, resource_request: Any) -> None:
            self._requests.remove(resource_request)

        def has_resources_ready(self, resource_request: Any) -> bool:
            return bool(self._free) and resource_request in self._requests

        def acquire_resources(self, resource_request: Any) -> Bundle | None:
            if not self.has_resources_ready(resource_request):
                return None
            self._requests.remove(resource_request)
            return Bundle(resource_request, group, self._free.pop(0))

        def free_resources(self, acquired_resource: Bundle) -> None:
            self._free.append(acquired_resource.index)

        def clear(self) -> None:
            self._free, self._requests = list(range(group.bundle_count)), []

    theirs = tune_controller.PlacementGroupResourceManager
    tune_controller.PlacementGroupResourceManager = Lent
    try:
        yield
    finally:
        tune_controller.PlacementGroupResourceManager = theirs


def reported_node_types() -> list[tuple[str, dict[str, float], int]]:
    """Name, resources and largest number (-1: no limit) of each node type that was reported to Ray; mostly none.

    Private, but no public call tells it. Ray 2.60's own autoscaler does not report its types, managed services' may.
    """
    from ray._private.state import state

    config = state.get_cluster_config()
    return [(kind.name, dict(kind.resources), kind.max_count) for kind in config.node_group_configs] if config else []


def not_placeable() -> set[str] | None:
    """Ids of the placement groups that the cluster's autoscaler finds no node for now; None without an autoscaler.

    It counts nodes up to its limits: what waits for others to end is among them. Private, since the public status that
    Ray prints leaves these out. Every head runs an autoscaler that at least reports; nodes of one that starts any know
    their type.
    """
    from ray._private.worker import global_worker
    from ray.core.generated.autoscaler_pb2 import GetClusterStatusReply

    reply = GetClusterStatusReply.FromString(global_worker.gcs_client.get_cluster_status(timeout_s=10))
    if not any(node.ray_node_type_name for node in reply.cluster_resource_state.node_states):
        return None
    # Its details say "ID:STRATEGY|STATE".
    return {gang.details.partition(":")[0] for gang in reply.autoscaling_state.infeasible_gang_resource_requests}
