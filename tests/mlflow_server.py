"""The MLflow server of cluster/mlflow/compose.yaml, on this machine: on PostgreSQL, artifacts in S3, with passwords."""

import os
import pwd
import secrets
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.object_servers import BUCKET, Server, asked, running, until
from tests.ray_nodes import free_ports

ADMIN = "admin"


@dataclass(frozen=True)
class Tracking:
    """Where it listens, and the variables of a client that may write."""

    uri: str
    variables: dict[str, str]


@contextmanager
def postgres(folder: Path) -> Iterator[str]:
    """An empty database, reached by TCP with a password; its URL without that."""
    programs = next(iter(sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)), None)
    if programs is None:
        pytest.skip("PostgreSQL is not installed (apt-get install postgresql)")
    (port,) = free_ports(1)
    password = folder / "password"
    password.write_text(os.environ["PGPASSWORD"])
    user = {} if os.getuid() else {"user": "postgres"}  # it refuses to run as root
    if user:
        account = pwd.getpwnam("postgres")
        for path in (folder, password):
            os.chown(path, account.pw_uid, account.pw_gid)
    here = {"cwd": folder, **user}
    made = ["--username=mlflow", f"--pwfile={password}", "--auth=scram-sha-256", f"--pgdata={folder}/data"]
    subprocess.run([programs / "initdb", *made], check=True, capture_output=True, **here)
    command = [str(programs / "postgres"), "-D", f"{folder}/data", "-p", port, "-h", "127.0.0.1", "-k", str(folder)]
    with running(command, folder, **user):
        reached = [programs / "createdb", "--host=127.0.0.1", f"--port={port}", "--username=mlflow", "mlflow"]
        until(lambda: subprocess.run(reached, capture_output=True, check=False).returncode == 0)
        yield f"postgresql://mlflow@127.0.0.1:{port}/mlflow"


@contextmanager
def mlflow_server(folder: Path, s3: Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[Tracking]:
    """A server that lets nobody in without a password."""
    if find_spec("flask_wtf") is None or find_spec("psycopg") is None:
        pytest.skip("the MLflow server's parts are not installed (pip install -e '.[server]')")
    if shutil.which("createdb") is None:
        pytest.skip("PostgreSQL is not installed (apt-get install postgresql)")
    password, (port,) = secrets.token_hex(16), free_ports(1)
    monkeypatch.setenv("PGPASSWORD", secrets.token_hex(16))
    (folder / "database").mkdir()
    with postgres(folder / "database") as database:
        (folder / "auth.ini").write_text(
            f"[mlflow]\ndatabase_uri = {database}\ndefault_permission = READ\nadmin_username = {ADMIN}\n"
        )
        variables = {
            "MLFLOW_AUTH_CONFIG_PATH": str(folder / "auth.ini"),
            "MLFLOW_AUTH_ADMIN_PASSWORD": password,
            "MLFLOW_FLASK_SERVER_SECRET_KEY": secrets.token_hex(16),
            "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
            "MLFLOW_S3_ENDPOINT_URL": f"http://{s3.address}",
            **s3.variables(s3.address),
        }
        command = [
            *(sys.executable, "-m", "mlflow", "server", "--host=127.0.0.1", f"--port={port}", "--workers=1"),
            *(
                "--app-name=basic-auth",
                f"--backend-store-uri={database}",
                f"--artifacts-destination=s3://{BUCKET}/mlflow",
            ),
        ]
        with running(command, folder, env=os.environ | variables):
            until(lambda: asked("GET", f"http://127.0.0.1:{port}/health"))
            yield Tracking(
                f"http://127.0.0.1:{port}",
                {"MLFLOW_TRACKING_USERNAME": ADMIN, "MLFLOW_TRACKING_PASSWORD": password},
            )
