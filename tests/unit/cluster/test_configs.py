"""The files of cluster/ that other programs read: against those programs' own schemas where a package carries one, and
against what this repository says elsewhere.

KubeRay's and Kueue's schemas are in no registry: their manifests are held to the fields of KubeRay's API reference that
they use, written down here. CloudFormation's linter passes on aws-account.yaml; it is too large to be a test's.
"""

import json
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

import jsonschema
import kubernetes_validate
import psutil
import pytest
import typer
import yaml

from orchestrator.cli import app

ROOT = Path(__file__).parents[3]
CLUSTER = ROOT / "cluster"
RAY_UP = ["aws.yaml", "gcp.yaml", "local.yaml"]
KUBERAY = ["kuberay/raycluster.yaml", "kuberay/rayjob.yaml"]
CHANGED = [*RAY_UP, *KUBERAY, "kuberay/storage.yaml", "kuberay/queue.yaml", "mlflow/compose.yaml", "slurm.sbatch"]
ALL = [*CHANGED, "aws-account.yaml", "Dockerfile"]
PINNED = dict(
    line.split("==") for line in (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines() if "==" in line
)
TAG = f"ray{PINNED['ray']}-py311"
"""Of the image that cluster/Dockerfile makes."""


class Cloudformation(yaml.SafeLoader):
    """Reads its short forms, such as !Ref Name, as their values."""


Cloudformation.add_multi_constructor("!", lambda loader, _, node: getattr(node, "value", None))


def text_of(name: str) -> str:
    return (CLUSTER / name).read_text(encoding="utf-8")


def documents(name: str) -> list[Any]:
    return list(yaml.load_all(text_of(name), Cloudformation))


def values(data: Any) -> Iterator[tuple[str, Any]]:
    """Every value in nested data with the key that it or its list has."""
    for key, value in data.items() if isinstance(data, dict) else []:
        yield str(key), value
        yield from values(value)
        for item in value if isinstance(value, list) else []:
            yield str(key), item
            yield from values(item)
    for item in data if isinstance(data, list) else []:
        yield from values(item)


def prepared(name: str) -> dict[str, Any]:
    """A config as `ray up` completes and checks it, before it looks at the cloud."""
    from ray.autoscaler._private.util import prepare_config, validate_config

    config: dict[str, Any] = prepare_config(yaml.safe_load(text_of(name)))
    validate_config(config)
    return config


@pytest.mark.parametrize("name", RAY_UP)
def test_ray_up_takes_them(name: str):
    config = prepared(name)
    assert "~/.ray/auth_token" in config["file_mounts"]
    assert "--env RAY_AUTH_MODE=token" in config["docker"]["run_options"]
    assert not [command for command in config["setup_commands"] if "pip" in command]  # all is in the image
    # Ray's own default listens on every address.
    assert not [command for command in config["head_start_ray_commands"] if "dashboard-host" in command]


@pytest.mark.parametrize("name", ["aws.yaml", "gcp.yaml"])
def test_a_cloud_has_a_head_that_trains_nothing_and_workers_of_both_kinds(name: str):
    from ray._private.label_utils import validate_node_label_syntax

    config = prepared(name)
    kinds = config["available_node_types"]
    head = kinds.pop(config["head_node_type"])
    assert head["resources"] == {"CPU": 0}
    assert head["labels"]["ray.io/market-type"] == "on-demand"
    markets = [kind["labels"]["ray.io/market-type"] for kind in kinds.values()]
    assert sorted(markets) == ["on-demand", "spot"]
    for kind in [head, *kinds.values()]:
        validate_node_label_syntax(kind["labels"])
    assert all(kind["resources"]["GPU"] and kind["min_workers"] <= kind["max_workers"] for kind in kinds.values())
    assert sum(kind["max_workers"] for kind in kinds.values()) == config["max_workers"]
    assert config["idle_timeout_minutes"]


def test_which_machines_are_spot_and_what_they_may_do_is_what_their_labels_say():
    for kind in prepared("aws.yaml")["available_node_types"].values():
        is_spot = kind["node_config"].get("InstanceMarketOptions") == {"MarketType": "spot"}
        assert is_spot == (kind["labels"]["ray.io/market-type"] == "spot")
        # Without both of these Ray makes a role that may do everything, and opens port 22 to the world.
        assert kind["node_config"]["IamInstanceProfile"]["Name"].startswith("tournament-")
        assert kind["node_config"]["SecurityGroupIds"]
    for kind in prepared("gcp.yaml")["available_node_types"].values():
        is_spot = kind["node_config"].get("scheduling", {}).get("provisioningModel") == "SPOT"
        assert is_spot == (kind["labels"]["ray.io/market-type"] == "spot")
        assert kind["node_config"]["serviceAccounts"][0]["email"].startswith("tournament-")
        assert not any("accessConfigs" in interface for interface in kind["node_config"]["networkInterfaces"])


KUBERNETES = "1.34"
GROUP = {"rayStartParams", "labels", "template"}
FIELDS = {
    "RayCluster": {"rayVersion", "authOptions", "enableInTreeAutoscaling", "autoscalerOptions", "headGroupSpec",
                   "workerGroupSpecs"},
    "RayJob": {"entrypoint", "backoffLimit", "shutdownAfterJobFinishes", "ttlSecondsAfterFinished", "rayClusterSpec"},
    "headGroupSpec": GROUP,
    "workerGroupSpecs": GROUP | {"groupName", "replicas", "minReplicas", "maxReplicas"},
    "authOptions": {"mode"},
    "autoscalerOptions": {"version", "idleTimeoutSeconds"},
    "ClusterQueue": {"namespaceSelector", "resourceGroups"},
    "LocalQueue": {"clusterQueue"},
    "resourceGroups": {"coveredResources", "flavors"},
}  # fmt: skip
"""Those that are used of each object of KubeRay's and Kueue's, read in their API references (KubeRay 1.7)."""


@pytest.mark.parametrize("name", [*KUBERAY, "kuberay/storage.yaml", "kuberay/queue.yaml"])
def test_manifests_use_fields_that_there_are(name: str):
    for document in documents(name):
        assert {"apiVersion", "kind", "metadata"} <= document.keys() <= {"apiVersion", "kind", "metadata", "spec"}
        if document["apiVersion"] in ("v1", "networking.k8s.io/v1"):
            kubernetes_validate.validate(document, KUBERNETES, strict=True)
            continue
        assert document.get("spec", {}).keys() <= FIELDS.get(document["kind"], set()), document["kind"]
        for key, value in values(document):
            if key in FIELDS and isinstance(value, dict):
                assert value.keys() <= FIELDS[key], key
            if key == "template":
                kubernetes_validate.validate({"apiVersion": "v1", "kind": "Pod", **value}, KUBERNETES, strict=True)


def raycluster() -> dict[str, Any]:
    return documents("kuberay/raycluster.yaml")[0]["spec"]


def test_a_tournaments_own_cluster_is_the_standing_one():
    job = documents("kuberay/rayjob.yaml")[0]["spec"]
    assert job["rayClusterSpec"] == raycluster()
    assert job["backoffLimit"] > 0
    assert job["shutdownAfterJobFinishes"]


def test_pods_on_kubernetes():
    spec = raycluster()
    head, *workers = [spec["headGroupSpec"], *spec["workerGroupSpecs"]]
    assert spec["rayVersion"] == PINNED["ray"]
    assert spec["authOptions"]["mode"] == "token"
    assert spec["autoscalerOptions"]["version"] == "v2"
    assert head["rayStartParams"]["num-cpus"] == "0"
    assert [group["labels"]["ray.io/market-type"] for group in workers] == ["spot", "on-demand"]
    for group in [head, *workers]:
        pod = group["template"]["spec"]
        (container,) = pod["containers"]
        volumes = {volume["name"]: volume for volume in pod["volumes"]}
        mounts = {mount["mountPath"]: volumes[mount["name"]] for mount in container["volumeMounts"]}
        assert mounts["/dev/shm"]["emptyDir"]["medium"] == "Memory"
        assert mounts["/mnt/runs"]["persistentVolumeClaim"]["claimName"] == "runs"
        assert container["resources"]["requests"]["memory"] == container["resources"]["limits"]["memory"]
        assert pod["securityContext"]["runAsUser"] == 1000
        assert group["template"]["metadata"]["labels"] == {"app": "tournament"}  # the NetworkPolicy's
    # Workers are rid of whatever logs in (cluster/environment.py): on Kubernetes they are not even given it.
    secrets = [source["secretRef"]["name"] for source in head["template"]["spec"]["containers"][0]["envFrom"]]
    assert secrets == ["hub", "storage", "tracking"]
    assert "secret" not in json.dumps(workers).lower()


def test_a_pod_that_ends_has_the_driver_stop_in_order_first(monkeypatch: pytest.MonkeyPatch):
    (head,) = raycluster()["headGroupSpec"]["template"]["spec"]["containers"]
    command = head["lifecycle"]["preStop"]["exec"]["command"]
    assert command[:2] == ["python", "-c"]
    driver, other = (MagicMock(info={"cmdline": line}) for line in (["python", "-m", "orchestrator", "run", "x"], None))
    waited = MagicMock()
    monkeypatch.setattr(psutil, "process_iter", lambda names: [driver, other])
    monkeypatch.setattr(psutil, "wait_procs", waited)
    exec(command[2], {})
    driver.terminate.assert_called_once()
    other.terminate.assert_not_called()
    (drivers,), _ = waited.call_args
    assert drivers == [driver]


def test_manifests_name_the_queue_that_there_is():
    (queue,) = [document for document in documents("kuberay/queue.yaml") if document["kind"] == "LocalQueue"]
    for name in KUBERAY:
        metadata = documents(name)[0]["metadata"]
        assert metadata["labels"]["kueue.x-k8s.io/queue-name"] == queue["metadata"]["name"]
        assert metadata["namespace"] == queue["metadata"]["namespace"]


def test_docker_compose_takes_the_mlflow_server():
    pytest.importorskip("check_jsonschema", reason="check-jsonschema, which carries the schema, is not installed")
    schema = files("check_jsonschema") / "builtin_schemas" / "vendor" / "compose-spec.json"
    compose = documents("mlflow/compose.yaml")[0]
    jsonschema.validate(compose, json.loads(schema.read_text(encoding="utf-8")))
    options = {option.split("=")[0] for option in compose["services"]["mlflow"]["command"]}
    assert {"--allowed-hosts", "--backend-store-uri", "--artifacts-destination"} <= options
    assert "--app-name=basic-auth" in compose["services"]["mlflow"]["command"]
    assert [name for name, service in compose["services"].items() if "outside" in service["networks"]] == ["mlflow"]


def run_linter(name: str, *arguments: str) -> None:
    tool = shutil.which(name, path=Path(sys.executable).parent) or shutil.which(name)
    if tool is None:
        pytest.skip(f"{name} is not installed (pip install '.[dev]')")
    found = subprocess.run([tool, *arguments], capture_output=True, text=True, cwd=ROOT, check=False)
    assert found.returncode == 0, found.stdout + found.stderr


def test_shellcheck_has_nothing_to_say():
    run_linter("shellcheck", "cluster/slurm.sbatch")


def test_hadolint_has_nothing_to_say():
    run_linter("hadolint", "cluster/Dockerfile")


def test_versions_are_the_pinned_ones():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    python = project["tool"]["mypy"]["python_version"]
    assert TAG.endswith(f"-py{python.replace('.', '')}")
    for name in [*ALL, "../docs/cluster.md"]:
        assert set(re.findall(r"\bray\d[\w.]*-py\d+", text_of(name))) <= {TAG}, name
        assert set(re.findall(r"\bpython:([\d.]+)", text_of(name))) <= {python}, name
    for name in [*RAY_UP, *KUBERAY, "Dockerfile", "aws-account.yaml", "../docs/cluster.md"]:
        assert TAG in text_of(name)
    assert f"tournament-mlflow:{PINNED['mlflow']}" in text_of("mlflow/compose.yaml")
    assert "--constraint constraints.txt --editable" in text_of("Dockerfile")


def test_the_image_sets_what_ray_and_nvidia_would_have_otherwise():
    image = text_of("Dockerfile")
    assert "NVIDIA_VISIBLE_DEVICES=all" in image  # else NVIDIA's runtime shows a container no GPU
    assert "RAY_JOB_STOP_WAIT_TIME_S=120" in image  # else `ray job stop` kills the driver after three seconds
    assert "RAY_AUTH_MODE=token" in image
    assert re.search(r"^HOME=|ENV HOME=", image)  # else `ray up` takes root's


def test_no_image_is_whatever_is_newest():
    images = [image for name in ALL if "." in name for _, image in found_images(name)]
    assert len(images) >= 8
    for image in images:
        assert re.search(r":[\w.-]*\d[\w.-]*$", image), image


def found_images(name: str) -> list[tuple[str, str]]:
    return [] if name == "slurm.sbatch" else [(k, v) for d in documents(name) for k, v in values(d) if k == "image"]


@pytest.mark.parametrize("name", ALL)
def test_no_secret_is_written_down(name: str):
    """What is named after one says where it is, or is the command that makes it."""
    text = text_of(name)
    for assigned in re.findall(r"(?im)^[ -]*[\w.]*(?:password|secret|token|private_key)\w*[:=] *(\S+)", text):
        assert assigned.startswith(("${", "~/", "{name:")), (name, assigned)
    assert not re.search(r"AKIA\w{16}|hf_\w{20}|BEGIN \w* ?PRIVATE KEY|kind: Secret|://\w+:[^@\s/]+@", text)


def test_the_mlflow_servers_passwords_reach_neither_git_nor_the_image():
    assert "cluster/mlflow/.env" in text_of("../.gitignore").splitlines()
    assert text_of("../.dockerignore").splitlines()[-1] == "**/.env"  # after what lets cluster/ in


@pytest.mark.parametrize("name", ALL)
def test_nothing_is_open_to_the_world(name: str):
    text = text_of(name)
    assert "0.0.0.0/0" not in text
    assert "::/0" not in text
    if name.endswith(".yaml"):
        for document in documents(name):
            for key, value in values(document):
                assert key not in ("CidrIp", "CidrIpv6", "hostNetwork", "hostPort"), key
                assert value not in ("NodePort", "LoadBalancer"), value
            for service in document.get("services", {}).values():
                assert all(port.startswith("127.0.0.1:") for port in service.get("ports", []))


@pytest.mark.parametrize("name", CHANGED)
def test_what_a_user_must_change_is_said_at_the_top_and_marked_where_it_is(name: str):
    announced = re.findall(r"^# CHANGE (\d): ", text_of(name), re.MULTILINE)
    assert announced == [str(number + 1) for number in range(len(announced))]
    assert 1 <= len(announced) <= 3
    assert set(re.findall(r"# CHANGE (\d)$", text_of(name), re.MULTILINE)) == set(announced)


@pytest.mark.parametrize("name", [*ALL, "../docs/cluster.md"])
def test_commands_use_options_that_there_are(name: str):
    commands = typer.main.get_command(app).commands  # type: ignore[attr-defined]
    called = rf"(?:-m orchestrator (\S+)|\btournament ({'|'.join(commands)})\b)((?:[^\n\\]|\\\n)*)"
    for module, script, rest in re.findall(called, text_of(name)):
        known = {option for parameter in commands[module or script].params for option in parameter.opts}
        assert set(re.findall(r"(?<=\s)--[\w-]+", rest)) <= known, rest
