"""Who answers at an address where jobs are to be submitted."""

import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
import ray

from cluster.errors import UserError
from cluster.on_ray.submission import Jobs


@pytest.fixture
def serve(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], str]]:
    """A function that has a server answer everything with a text, and returns its address."""
    monkeypatch.setenv("RAY_API_SERVER_ADDRESS", "")
    servers = []

    def start(text: str) -> str:
        class Answer(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.send_response(200)
                self.end_headers()
                self.wfile.write(text.encode())

            def log_message(self, *_: object) -> None:
                pass

        server = HTTPServer(("127.0.0.1", 0), Answer)
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        servers.append(server)
        return f"http://127.0.0.1:{server.server_port}"

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def test_a_cluster_of_another_release_of_ray_is_refused(serve: Callable[[str], str]):
    address = serve(json.dumps({"version": "4", "ray_version": "2.40.0"}))
    with pytest.raises(UserError, match=f"{address} runs Ray 2.40.0, and this is Ray {ray.__version__}"):
        Jobs(address)
    Jobs(serve(json.dumps({"version": "4", "ray_version": ray.__version__})))


def test_what_is_no_dashboard_is_refused(serve: Callable[[str], str]):
    address = serve("<html>")
    with pytest.raises(UserError, match=f"{address} is no dashboard of a Ray cluster: "):
        Jobs(address)
