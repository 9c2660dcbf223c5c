"""Placement groups that nobody is left to remove.

Ray Train's controller makes the placement group of a gang and removes it at the end. When the coordinator is
ended from outside, the controller and the workers end with it, but Ray keeps what an actor reserved until the
whole job ends; Ray Train's own cleaner asks the dashboard's server, which a Ray of our own does without.
"""

import ray
from ray.util.placement_group import PlacementGroup, remove_placement_group


def remove_orphans() -> int:
    """Remove the placement groups of this job whose creating actor is dead. Returns how many there were.

    Takes a call to Ray's control store; to be called some times after a coordinator has ended, since its
    controller ends a moment later.
    """
    # Private, but no public call says who created a placement group.
    from ray._private.state import state
    from ray.core.generated import gcs_pb2

    job = bytes.fromhex(ray.get_runtime_context().get_job_id())
    removed = 0
    for packed in state._connect_and_get_accessor().get_placement_group_table():
        group = gcs_pb2.PlacementGroupTableData.FromString(packed)
        is_gone = group.state == gcs_pb2.PlacementGroupTableData.REMOVED
        if group.creator_job_id == job and group.creator_actor_id and group.creator_actor_dead and not is_gone:
            remove_placement_group(PlacementGroup(ray.PlacementGroupID(group.placement_group_id)))
            removed += 1
    return removed
