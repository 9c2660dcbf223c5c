"""A proxy before an object store's server that throttles, fails, delays, cuts, shortens or spoils what passes it."""

import http.client
import itertools
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Literal

Fault = Literal[
    "throttled",  # 503 SlowDown, as S3 says it
    "too many",  # 429, as others do
    "failed",  # 500; the server never saw the request
    "failed after",  # 500; the server has done what was asked
    "delayed",
    "cut before",  # the connection; the server never saw the request
    "cut after",  # the connection; the server has done what was asked
    "truncated",  # the answer breaks off in the middle
    "shortened",  # the same, and its length says that this is all
    "spoilt",  # one byte of the answer is another
]
Headers = dict[str, str]
Translate = Callable[[str, str, bytes, Headers], tuple[str, str, bytes, Headers]]
SLOW_DOWN = b"<Error><Code>SlowDown</Code><Message>Please reduce your request rate.</Message></Error>"


@dataclass
class Proxy:
    """Where it listens, what it has seen (method, path, fault), and what it does to the next request."""

    address: str
    fault: Callable[[str, str], Fault | None] = lambda method, path: None
    seen: list[tuple[str, str, Fault | None]] = field(default_factory=list)
    delay_seconds: float = 0.2

    def half_of_all(self, on_reads: Sequence[Fault], on_others: Sequence[Fault]) -> None:
        """Have every other request meet a fault, of each kind in turn."""
        turns, lock = itertools.count(), threading.Lock()

        def fault(method: str, path: str) -> Fault | None:
            with lock:
                turn = next(turns)
            kinds = on_reads if method == "GET" else on_others
            return None if turn % 2 else kinds[turn // 2 % len(kinds)]

        self.fault = fault

    def once(self, *faults: Fault, method: str = "", path: str = "") -> None:
        """Have the next requests of that method, to a path that holds `path`, meet one of `faults` after the other."""
        waiting, lock = list(faults), threading.Lock()

        def fault(asked: str, where: str) -> Fault | None:
            with lock:
                return waiting.pop(0) if waiting and asked.startswith(method) and path in where else None

        self.fault = fault

    def count(self, method: str, path: str = "") -> int:
        """How many such requests there were."""
        return sum(asked == method and path in where for asked, where, _ in self.seen)


@contextmanager
def before(server: str, as_server: Translate | None = None) -> Iterator[Proxy]:
    """A proxy before the server at that address, which may speak of the same in another way."""
    as_server = as_server or _as_it_is

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True  # or each answer, of headers and then a body, waits 40 ms
        wbufsize = -1

        def do(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            fault = proxy.fault(self.command, self.path)
            proxy.seen.append((self.command, self.path, fault))
            if fault == "delayed":
                time.sleep(proxy.delay_seconds)
            if fault == "cut before":
                return self.cut()
            if fault in ("throttled", "too many", "failed"):
                code = {"throttled": 503, "too many": 429, "failed": 500}[fault]
                return self.answer(code, {}, SLOW_DOWN if fault == "throttled" else b"")
            code, headers, content = self.ask(body)
            if fault == "cut after":
                return self.cut()
            if fault == "failed after":
                return self.answer(500, {}, b"")
            if fault == "truncated":
                self.answer(code, headers, content[: len(content) // 2], len(content))
                return self.cut()
            if fault == "shortened":
                content = content[: len(content) // 2]
            if fault == "spoilt":
                content = content[:-1] + bytes([content[-1] ^ 1])
            return self.answer(code, headers, content)

        do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = do

        def ask(self, body: bytes) -> tuple[int, dict[str, str], bytes]:
            asking = http.client.HTTPConnection(server, timeout=30)
            headers = {name.lower(): value for name, value in self.headers.items()}
            asking.request(*as_server(self.command, self.path, body, headers))
            answer = asking.getresponse()
            content = answer.read()
            asking.close()
            headers = dict(answer.getheaders())
            if self.command == "PUT" and answer.status < 300:
                headers.setdefault("ETag", '"etag"')  # every store of the kinds that obstore knows says one
            return answer.status, headers, content

        def answer(self, code: int, headers: dict[str, str], content: bytes, length: int | None = None) -> None:
            self.send_response_only(code)
            for name, value in headers.items():
                if name.lower() not in ("content-length", "connection", "transfer-encoding", "keep-alive"):
                    self.send_header(name, value)
            said = len(content) if length is None else length
            if self.command == "HEAD":
                said = int({n.lower(): v for n, v in headers.items()}.get("content-length", 0))
            self.send_header("Content-Length", str(said))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(content)

        def cut(self) -> None:
            self.close_connection = True
            self.wfile.flush()
            self.connection.shutdown(socket.SHUT_RDWR)

        def log_message(self, format: str, *args: object) -> None:
            pass

    class Listener(ThreadingHTTPServer):
        request_queue_size = 128
        daemon_threads = True

    listener = Listener(("127.0.0.1", 0), Handler)
    proxy = Proxy(f"127.0.0.1:{listener.server_port}")
    thread = threading.Thread(target=listener.serve_forever, daemon=True)
    thread.start()
    try:
        yield proxy
    finally:
        listener.shutdown()
        listener.server_close()
        thread.join()


def _as_it_is(method: str, path: str, body: bytes, headers: Headers) -> tuple[str, str, bytes, Headers]:
    return method, path, body, headers
