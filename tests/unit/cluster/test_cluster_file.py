"""What a config for `ray up` allows, and what is wrong with one that is none."""

from pathlib import Path

import pytest

from cluster.cluster_file import nodes_of, read_cluster
from cluster.errors import UserError

CLUSTER = Path(__file__).parents[3] / "cluster"


def test_the_files_here_allow_a_head_and_their_workers():
    for name, kind in (("aws.yaml", "L40S"), ("gcp.yaml", "L4")):
        nodes = nodes_of(read_cluster(CLUSTER / name))
        assert len(nodes) == 1 + 6
        assert sum(node.size.get("GPU", 0) for node in nodes.values()) == 24
        assert {node.labels.get("ray.io/accelerator-type") for node in nodes.values()} == {kind, None}


def test_one_node_in_a_word():
    (node,) = nodes_of(read_cluster(Path("8xA100-80G"))).values()
    assert node.size == {"CPU": 128, "GPU": 8}
    assert node.labels == {"ray.io/accelerator-type": "A100-80G"}
    with pytest.raises(UserError, match="8 x H100: cannot be read"):
        read_cluster(Path("8 x H100"))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("name: t", "no cluster config for `ray up`: available_node_types, head_node_type"),
        ("- a", "no cluster config"),
        ("{head_node_type: h, available_node_types: {a: 3}}", "no cluster config"),
        ("{a: [", "not valid YAML"),
        (None, "cannot be read"),
    ],
)
def test_another_file_is_one_line(tmp_path: Path, text: str | None, words: str):
    file = tmp_path / "cluster.yaml"
    if text is not None:
        file.write_text(text)
    with pytest.raises(UserError, match=f"^{file}: {words}"):
        read_cluster(file)
