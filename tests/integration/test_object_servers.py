"""Records, histories and blobs on servers, through a proxy that throttles, fails, delays, cuts, shortens and spoils.

moto stands for all of them by default; the others are asked with -m slow, where they are installed.
"""

import multiprocessing
import os
import threading
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from cluster.bucket import store_probe
from cluster.bucket.blobs import Blobs
from cluster.bucket.histories import History
from cluster.bucket.object_store import PART_BYTES, ObjectStore, Patience
from cluster.bucket.store_probe import RACERS, open_store
from cluster.errors import BrokenRecord, UserError
from tests import object_servers as servers
from tests.faulty_proxy import Fault, Proxy, before

SPAWN = multiprocessing.get_context("spawn")
IN_HASTE = Patience(in_all=30, one_request=20, longest_pause=0.5, retries=10)
CREATE_FAULTS: list[Fault] = [
    "throttled", "too many", "failed", "failed after", "delayed", "cut before", "cut after",
]  # fmt: skip
READ_FAULTS: list[Fault] = [*CREATE_FAULTS, "truncated", "shortened", "spoilt"]


@dataclass
class Place:
    """A server, the proxy before it, and a store of its own on it for each test."""

    server: servers.Server
    proxy: Proxy
    url: str = ""

    def store(self, patience: Patience = IN_HASTE) -> ObjectStore:
        return ObjectStore(self.url, patience)

    @property
    def takes_parts(self) -> bool:
        return not self.url.startswith("gs")


@pytest.fixture(
    scope="module",
    params=["moto", *(pytest.param(n, marks=pytest.mark.slow) for n in ("seaweed", "fake_gcs", "azurite"))],
)
def running(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    start = getattr(servers, request.param)
    with ExitStack() as stack:
        folder = tmp_path_factory.mktemp(request.param)
        server = stack.enter_context(start() if request.param == "moto" else start(folder))
        yield Place(server, stack.enter_context(before(server.address)))


@pytest.fixture
def place(running: Place, monkeypatch: pytest.MonkeyPatch) -> Place:
    for name, value in running.server.variables(running.proxy.address).items():
        monkeypatch.setenv(name, value)
    running.url = f"{running.server.url}/{uuid.uuid4().hex[:8]}"
    running.proxy.once()
    running.proxy.seen.clear()
    running.proxy.delay_seconds = 0.2
    return running


def at_once(count: int, function: Callable[[int], None]) -> None:
    threads = [threading.Thread(target=function, args=(n,)) for n in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def test_it_keeps_its_promise_and_is_left_as_it_was(place: Place):
    assert open_store(place.url).list() == []
    assert place.proxy.count("PUT") >= RACERS + 2


def test_exactly_one_of_racing_creates_wins_whatever_happens_to_their_answers(place: Place):
    store = place.store()
    place.proxy.half_of_all(CREATE_FAULTS, CREATE_FAULTS)
    for turn in range(2):
        together, winners = threading.Barrier(16), list[int]()

        def race(racer: int) -> None:
            together.wait()  # noqa: B023
            if store.create(f"race/{turn}", str(racer).encode()):  # noqa: B023
                winners.append(racer)  # noqa: B023

        at_once(16, race)
        assert len(winners) == 1
        assert store.read(f"race/{turn}") == str(winners[0]).encode()


@pytest.mark.parametrize("fault", CREATE_FAULTS)
def test_who_created_it_knows(place: Place, fault: Fault):
    store = place.store()
    place.proxy.once(fault, fault, method="PUT")
    assert store.create("it", b"mine")
    assert store.read("it") == b"mine"
    place.proxy.once(fault, method="PUT")
    assert not store.create("it", b"mine")


@pytest.mark.slow
def test_a_create_whose_answer_comes_too_late_is_known_as_well(place: Place):
    store = place.store(Patience(in_all=60, one_request=1, longest_pause=0.2, retries=1))
    place.proxy.delay_seconds = 2
    place.proxy.once("delayed", method="PUT")
    assert store.create("it", b"mine")
    assert place.proxy.count("PUT") > 1
    assert store.read("it") == b"mine"


@pytest.mark.parametrize("fault", READ_FAULTS)
def test_what_is_read_is_whole(place: Place, fault: Fault):
    store = place.store()
    store.create("it", b"0123456789" * 1000)
    place.proxy.once(fault, method="GET")
    assert store.read("it") == b"0123456789" * 1000


@pytest.mark.parametrize("fault", [*CREATE_FAULTS, "truncated"])
def test_what_is_not_there_is_known_not_to_be(place: Place, fault: Fault):
    place.proxy.once(fault, fault, method="GET")
    assert place.store().read("it") is None


@pytest.mark.parametrize("fault", ["shortened", "spoilt"])
def test_what_stays_damaged_is_an_error_that_names_it(place: Place, fault: Fault):
    place.store().create("it", b"0123456789")
    place.proxy.fault = lambda method, path: fault
    with pytest.raises(BrokenRecord, match=f"{place.url}/it: is cut off or damaged"):
        place.store().read("it")


@pytest.mark.slow
def test_a_history_through_all_that_loses_nothing_and_doubles_nothing(place: Place):
    history = History(place.store(), "decisions")

    def append(who: int) -> None:
        for count in range(3):
            history.append(f"{who}-{count}".encode())

    place.proxy.half_of_all(READ_FAULTS, CREATE_FAULTS)
    at_once(3, append)
    place.proxy.once()
    numbers, records = zip(*history.after(), strict=True)
    assert list(numbers) == list(range(1, 10))
    assert sorted(records) == sorted(f"{who}-{count}".encode() for who in range(3) for count in range(3))


PARTS = [("PUT", "blobs"), ("POST", "uploads"), ("POST", "uploadId="), ("PUT", "comp=blocklist")]
"""A part, or a whole; the beginning and the end of an upload in parts to S3; the end of one to Azure."""
MOST_TELLING = [
    ("PUT", "blobs", "cut after"),
    ("POST", "uploadId=", "failed after"),
    ("POST", "uploadId=", "cut after"),
]


@pytest.mark.parametrize(
    ("method", "path", "fault"),
    [
        pytest.param(*each, fault, marks=[] if (*each, fault) == MOST_TELLING else pytest.mark.slow)
        for each in PARTS
        for fault in CREATE_FAULTS
    ],
)
def test_large_files_come_and_go_whole(place: Place, tmp_path: Path, method: str, path: str, fault: Fault):
    size = 2 * PART_BYTES + 1000 if place.takes_parts else 1000
    (tmp_path / "it").write_bytes(os.urandom(size))
    blobs = Blobs(place.store())
    place.proxy.once(fault, method=method, path=path)
    blob = blobs.put_file(tmp_path / "it")
    blobs.get_file(blob, tmp_path / "again")
    assert (tmp_path / "again").read_bytes() == (tmp_path / "it").read_bytes()
    place.proxy.seen.clear()
    assert blobs.put_file(tmp_path / "it") == blob
    assert place.proxy.count("PUT") == 0


@pytest.mark.parametrize(
    "fault", [pytest.param(f, marks=[] if f in ("truncated", "shortened") else pytest.mark.slow) for f in READ_FAULTS]
)
def test_downloads_are_right(place: Place, tmp_path: Path, fault: Fault):
    size = PART_BYTES + 1000 if place.takes_parts else 1000
    (tmp_path / "it").write_bytes(os.urandom(size))
    blob = Blobs(place.store()).put_file(tmp_path / "it")
    place.proxy.once(fault, fault, method="GET")
    Blobs(place.store()).get_file(blob, tmp_path / "again")
    assert (tmp_path / "again").read_bytes() == (tmp_path / "it").read_bytes()


def upload(url: str, path: Path) -> None:
    """In a process of its own."""
    Blobs(ObjectStore(url, IN_HASTE)).put_file(path)


@pytest.mark.slow
def test_a_killed_upload_leaves_nothing_that_could_be_believed(place: Place, tmp_path: Path):
    if not place.takes_parts:
        pytest.skip("this server takes no uploads in parts")
    (tmp_path / "it").write_bytes(os.urandom(3 * PART_BYTES))
    arrived = threading.Event()

    def fault(method: str, path: str) -> Fault | None:
        if method == "PUT":
            arrived.set()
            return "delayed"
        return None

    place.proxy.fault = fault
    process = SPAWN.Process(target=upload, args=(place.url, tmp_path / "it"))
    process.start()
    assert arrived.wait(60)
    process.kill()
    process.join()
    place.proxy.once()
    assert place.store().list() == []
    blob = Blobs(place.store()).put_file(tmp_path / "it")
    Blobs(place.store()).get_file(blob, tmp_path / "again")
    assert (tmp_path / "again").read_bytes() == (tmp_path / "it").read_bytes()


def refusal(url: str) -> str:
    with pytest.raises(UserError) as refused:
        open_store(url)
    assert "\n" not in str(refused.value)
    return str(refused.value)


def test_a_bucket_that_is_not_there_is_refused(place: Place):
    url = place.url.replace(servers.BUCKET, "nowhere")
    assert refusal(url) == f"storage: {url}: cannot be written: its bucket is not there"


def test_an_endpoint_where_nothing_listens_is_refused(place: Place, monkeypatch: pytest.MonkeyPatch):
    for name, value in place.server.variables("127.0.0.1:9").items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(store_probe, "QUICK", replace(store_probe.QUICK, retries=2))
    assert refusal(place.url) == f"storage: {place.url}: cannot be read: nothing answers at 127.0.0.1:9"


def test_wrong_credentials_are_refused(place: Place, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest):
    if "seaweed" not in request.node.name and "azurite" not in request.node.name:
        pytest.skip("this server lets everybody in")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_KEY", "d3Jvbmc=")
    assert "the credentials in the environment are wrong" in refusal(place.url)


@pytest.mark.slow
def test_a_server_that_does_not_know_the_condition_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    with servers.fake_gcs(tmp_path, knows_conditions=False) as server:
        for name, value in server.variables(server.address).items():
            monkeypatch.setenv(name, value)
        assert "overwrites what it was told to create only" in refusal(server.url)
