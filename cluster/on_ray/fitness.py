"""Whether every node of a cluster can do our work: our packages and the same libraries as here, and the shared folder.

Asked of each living node by a task that holds nothing, before anything starts there; of one that joins later, when it
is first given work. Another Python or Ray than the head's no node can join with: Ray sees to that.
"""

import importlib.util
import os
import subprocess
import sys
from collections.abc import Collection, Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from cluster.errors import TournamentError
from cluster.resources import ACCELERATOR_LABEL
from cluster.text import last_line, plain

PACKAGES = ("cluster", "competitors", "evaluation", "orchestrator")
LIBRARIES = ("torch", "transformers", "trl", "peft", "accelerate", "datasets", "safetensors", "pyarrow", "numpy")
"""What trains and scores: another version of it may end in other losses."""
CPU_BUILD = "+cpu"
KIND = "accelerator_type:"
"""Begins the resource that Ray adds to a node where it has found an accelerator."""
SEES_NONE = 7
SEES_GPUS = f"import sys, torch; sys.exit(0 if torch.cuda.is_available() or torch.xpu.is_available() else {SEES_NONE})"
SHOWN = ("CUDA_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES", "ONEAPI_DEVICE_SELECTOR")
"""By which Ray hides a node's GPUs from a process that holds none."""
LOOK_SECONDS = 120.0
ANSWER_SECONDS = 300.0
"""So long a node may take to answer: it may have to fetch our packages first, and imports torch."""


def versions() -> dict[str, str | None]:
    """Of each library here, without the build that differs with the hardware (`2.13.0+cu130`); None where it is not."""
    found = dict[str, str | None]()
    for library in LIBRARIES:
        try:
            found[library] = version(library).partition("+")[0]
        except PackageNotFoundError:
            found[library] = None
    return found


def lacking(wanted: dict[str, str | None], proof: Path | str | None, accelerator: str | None = None) -> list[str]:
    """What this machine lacks, in words; `proof` is a file that it finds if it shares the file's folder, or the URL of
    an object store that it has to be let into. `accelerator` is the kind of GPU that it is said to have."""
    here = versions()
    lacks = [f"our package {name}" for name in PACKAGES if importlib.util.find_spec(name) is None]
    for library, there in wanted.items():
        if there is not None and here[library] != there:
            lacks.append(f"{library} {there}" + (f" (it has {here[library]})" if here[library] else ""))
    if accelerator is not None and here["torch"] is not None:
        if version("torch").endswith(CPU_BUILD):
            lacks.append(f"a torch for its {accelerator} (it has {version('torch')})")
        elif not _sees_gpus():
            lacks.append(f"a way to its {accelerator}: torch sees no GPU (NVIDIA's driver, the container's runtime?)")
    if isinstance(proof, Path) and not proof.exists():
        lacks.append(f"the folder {proof.parent}, which all nodes have to share")
    if isinstance(proof, str) and not lacks:
        from cluster.bucket.object_store import QUICK, ObjectStore
        from cluster.bucket.working_copy import DRIVER

        try:
            ObjectStore(proof, QUICK).size(DRIVER)
        except TournamentError as error:
            lacks.append(f"a way into the storage: {error}")
    return lacks


def _sees_gpus() -> bool:
    """Asked in a process of its own: to one that holds no GPU, as this, Ray shows none. What gives no answer says
    nothing against the node."""
    shown = {name: value for name, value in os.environ.items() if name not in SHOWN}
    command = [sys.executable, "-c", SEES_GPUS]
    try:
        asked = subprocess.run(command, env=shown, capture_output=True, check=False, timeout=LOOK_SECONDS)
    except subprocess.TimeoutExpired:
        return True
    return asked.returncode != SEES_NONE


def accelerator_of(node: Mapping[str, Any]) -> str | None:
    """The kind of GPU that a node, as `ray.nodes()` has it, is said to have; None without one. A GPU that is only
    counted, of no kind, may be a pretended one."""
    if not node["Resources"].get("GPU"):
        return None
    names: list[str] = [name.removeprefix(KIND) for name in node["Resources"] if name.startswith(KIND)]
    labels: Mapping[str, str] = node["Labels"]
    return names[0] if names else labels.get(ACCELERATOR_LABEL)


def unfit_nodes(proof: Path | str | None, asked: Collection[str] | None = None) -> list[str]:
    """A line for each node of the connected cluster that cannot do our work: which one it is, and why.

    Of `asked`, node ids, where these are given, else of all that live.
    """
    import ray
    from ray.exceptions import GetTimeoutError, RayError
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    def ask(node: str) -> Any:
        there = NodeAffinitySchedulingStrategy(node, soft=False)
        question = ray.remote(num_cpus=0, max_retries=0, scheduling_strategy=there)(lacking)
        return question.remote(versions(), proof, kinds[node])

    nodes = [node for node in ray.nodes() if node["Alive"]]
    living = {node["NodeID"]: node["NodeManagerAddress"] for node in nodes}
    kinds = {node["NodeID"]: accelerator_of(node) for node in nodes}
    answers = {node: ask(node) for node in living if asked is None or node in asked}
    unfit = {}
    for node, answer in answers.items():
        try:
            if lacks := ray.get(answer, timeout=ANSWER_SECONDS):
                unfit[node] = f"lacks {', '.join(lacks)}"
        except GetTimeoutError:
            unfit[node] = f"did not answer within {ANSWER_SECONDS:g} s"
        except RayError as error:
            # Where the function itself is not to be had, the last line of a long text says which module is missing.
            unfit[node] = f"cannot run what we are made of: {plain(last_line(error))}"
    return [f"node {living[node]} {why}" for node, why in unfit.items()]
