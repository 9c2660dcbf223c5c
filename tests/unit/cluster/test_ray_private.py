"""Ray's private modules are asked in one file, which loads none of Ray before that."""

import subprocess
import sys
from pathlib import Path

CLUSTER = Path(__file__).parents[3] / "cluster"


def test_it_and_the_way_to_ray_load_nothing_heavy():
    code = "import sys, cluster.ray_private, cluster.connect, cluster.in_process; print('ray' in sys.modules)"
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=CLUSTER.parent
    )
    assert result.stdout.strip() == "False"


def test_no_other_file_here_knows_a_private_module_of_ray():
    for file in CLUSTER.glob("*.py"):
        private = any(word in file.read_text() for word in ("ray._private", "_internal", "ray.core.generated"))
        assert private == (file.name == "ray_private.py"), file.name
