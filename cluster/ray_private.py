"""Everything that is asked of Ray's private modules, each with the reason why no public call does.

Nothing of Ray is imported before it is asked for.
"""

import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

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


def available_by_node() -> dict[str, dict[str, float]]:
    """What Ray has to give on each node now, a moment old, by node id.

    Private, but the public ray.available_resources() adds all nodes up.
    """
    from ray._private.state import available_resources_per_node

    return dict(available_resources_per_node())


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


def remove_orphans() -> int:
    """Remove the placement groups of this job whose creating actor is dead. Returns how many there were.

    Ray Train's controller makes the placement group of a gang and removes it at the end. When the coordinator is
    ended from outside, the controller and the workers end with it, but Ray keeps what an actor reserved until the
    whole job ends; Ray Train's own cleaner asks the dashboard's server, which a Ray of our own does without.

    Takes a call to Ray's control store; to be called some times after a coordinator has ended, since its
    controller ends a moment later. Private, but no public call says who created a placement group.
    """
    import ray
    from ray._private.state import state
    from ray.core.generated import gcs_pb2
    from ray.util.placement_group import PlacementGroup, remove_placement_group

    job = bytes.fromhex(ray.get_runtime_context().get_job_id())
    removed = 0
    for packed in state._connect_and_get_accessor().get_placement_group_table():
        group = gcs_pb2.PlacementGroupTableData.FromString(packed)
        is_gone = group.state == gcs_pb2.PlacementGroupTableData.REMOVED
        if group.creator_job_id == job and group.creator_actor_id and group.creator_actor_dead and not is_gone:
            remove_placement_group(PlacementGroup(ray.PlacementGroupID(group.placement_group_id)))
            removed += 1
    return removed
