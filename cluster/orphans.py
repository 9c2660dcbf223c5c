"""Placement groups whose creator was ended: Ray keeps their room until the whole job ends, so we give it back.

A coordinator (Ray Tune, Ray Train) makes placement groups for the processes that it starts. When it is killed Ray
ends those processes, but a group is only removed with its job, and the job is the tournament.
"""

import ray
from ray.util.placement_group import PlacementGroup, remove_placement_group


def remove_orphans() -> int:
    """Remove the placement groups of dead actors of this job; returns how many there were.

    An actor that was killed a moment ago may not be known to be dead yet.
    """
    # Private: the public table does not say who made a group, and Ray's state API needs the dashboard.
    from ray._private.state import state
    from ray.core.generated.gcs_pb2 import PlacementGroupTableData

    job = ray.get_runtime_context().get_job_id()
    removed = 0
    for data in state._connect_and_get_accessor().get_placement_group_table():
        group = PlacementGroupTableData.FromString(data)
        is_orphan = group.creator_actor_dead and not group.is_detached and group.creator_job_id.hex() == job
        if is_orphan and group.state != PlacementGroupTableData.REMOVED:
            remove_placement_group(PlacementGroup(ray.PlacementGroupID(group.placement_group_id)))
            removed += 1
    return removed
