"""An object store behind one URL: `s3://`, `gs://`, `az://`, or a folder that every node mounts.

What records stand on is one primitive, the create-only put: of all who create a key, one does, and whoever it was
knows it. Nothing here renames or locks, and no listing has to be consistent. Credentials and endpoints come from the
environment alone (AWS_…, GOOGLE_…, AZURE_…), so that neither a config nor a record ever holds one.

An answer may be lost after the put has landed, and then the same put, sent again, finds its own object there. So each
object begins with a line of its writer's own: whose line is read back has created it. The line also holds the
content's SHA-256: what was cut off or damaged on its way is not believed.
"""

import hashlib
import re
import time
import uuid
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import unquote, urlsplit

import obstore
from obstore.exceptions import AlreadyExistsError, BaseError, GenericError
from obstore.store import AzureStore, GCSStore, LocalStore, S3Store

from cluster.bucket.store_errors import broke_off, what_is_wrong
from cluster.errors import BrokenRecord, ClusterTrouble, UserError
from cluster.store import LOCAL, TEMPORARY
from cluster.text import discreet

T = TypeVar("T")

CLIENTS: dict[str, Callable[..., Any]] = {"s3": S3Store, "gs": GCSStore, "az": AzureStore}
WORDS = (b"tournament", b"1")
"""How the line begins that every object created here begins with; the writer's nonce and the SHA-256 follow."""
KEY = re.compile(r"[\w.=@+/-]+", re.ASCII)
REFUSALS = (BaseError, NotImplementedError, OSError)
READS = 5
"""How often an object that does not fit its SHA-256, or that breaks off, is asked for before it is called damaged."""
PART_BYTES = 8 << 20
AT_ONCE = 8
REMOVED_AT_ONCE = 32
MOST_PARTS = 9_000
"""Of one upload; S3 takes 10,000."""


@dataclass(frozen=True)
class Patience:
    """How long a store that throttles, fails or does not answer is asked again (seconds)."""

    in_all: float
    one_request: float
    longest_pause: float
    retries: int


PATIENT = Patience(in_all=180, one_request=60, longest_pause=10, retries=40)
QUICK = Patience(in_all=10, one_request=20, longest_pause=2, retries=5)
"""At the start, where a wrong URL is likelier than a store in trouble."""


class ObjectStore:
    """What lies below one URL. Cheap to make and to send to another process, which uses its own environment."""

    def __init__(self, url: str, patience: Patience = PATIENT) -> None:
        """UserError where the URL, or what the environment says of its store, cannot be meant. Asks nobody."""
        self.url, self.patience = url.rstrip("/"), patience
        self.folder = folder_of(url)
        try:
            self._client = LocalStore(self.folder) if self.folder else _client_of(url, patience)
        except (BaseError, ValueError, OSError) as error:
            raise UserError(f"storage: {discreet(url)}: {what_is_wrong(error)}") from error

    def __reduce__(self) -> tuple[Any, ...]:
        return ObjectStore, (self.url, self.patience)

    def create(self, key: str, data: bytes, mark: str | None = None) -> bool:
        """Put `data` at `key` if nothing is there. Whether this call did: of all who try, one does. Calls with the same
        `mark` count as one: who could not be told whether it did asks again."""
        nonce = (mark or uuid.uuid4().hex).encode()
        body = _line(nonce, data) + b"\n" + data
        deadline, pause = time.monotonic() + self.patience.in_all, 0.1
        while True:
            said = self._create(key, body)
            if said is None:
                return True
            there = self._open(key)
            if there is not None:
                return there[0] == nonce
            # Lost on its way or still on it, refused for somebody else's that was not finished, or removed since.
            # Sent again it does no harm: the line says whose it is, whichever of the two lands.
            if time.monotonic() > deadline:
                raise ClusterTrouble(f"{self.url}/{key}: cannot be written: {said}")
            time.sleep(pause)
            pause = min(2 * pause, self.patience.longest_pause)

    def _create(self, key: str, body: bytes) -> str | None:
        """None where it was created; else what came instead, which may stand for an answer that was lost."""
        try:
            if self.folder is not None:
                return None if LOCAL.create(self.folder / _checked(key), body) else "something is there"
            obstore.put(self._client, _checked(key), body, mode="create", use_multipart=False)
        except (AlreadyExistsError, GenericError) as error:
            return what_is_wrong(error)
        except REFUSALS as error:
            raise self._trouble(key, "written", error) from error
        return None

    def read(self, key: str) -> bytes | None:
        """What was created at `key`, whole; None where nothing was. BrokenRecord where it is damaged."""
        there = self._open(key)
        return None if there is None else there[1]

    def _open(self, key: str) -> tuple[bytes, bytes] | None:
        """The nonce of whoever created what lies at `key`, and the content."""
        for _ in range(READS):
            body = self._ask("read", key, lambda: bytes(obstore.get(self._client, _checked(key)).bytes()))
            if body is None:
                return None
            line, _, data = body.partition(b"\n")
            nonce = line.split(b" ")[2] if line.count(b" ") == 3 else b""
            if line == _line(nonce, data):
                return nonce, data
        raise BrokenRecord(f"{self.url}/{key}: is cut off or damaged, or was not written by this program")

    def list(self, prefix: str = "") -> list[str]:
        """Keys below the folder `prefix`, sorted. It may be stale: nothing that has to be right may rest on it."""
        pages = self._ask("listed", prefix, lambda: [*obstore.list(self._client, prefix or None)]) or []
        return sorted(item["path"] for page in pages for item in page if not item["path"].endswith(TEMPORARY))

    def delete(self, *keys: str) -> None:
        """Remove what lies at `keys`, if anything does: for what nobody refers to, and never for a record."""

        def remove(key: str) -> None:
            self._ask("removed", key, lambda: obstore.delete(self._client, key))

        with ThreadPoolExecutor(REMOVED_AT_ONCE) as threads:
            for _ in threads.map(remove, keys):
                pass

    def size(self, key: str) -> int | None:
        """Bytes of the object at `key`; None where there is none."""
        found = self._ask("read", key, lambda: obstore.head(self._client, key))
        return None if found is None else found["size"]

    def upload(self, key: str, parts: Iterable[bytes], size: int) -> None:
        """Put `parts`, `size` bytes in all, at `key`: whole, or not at all. What raises while it is read ends it."""
        try:
            if self.folder is not None:
                with LOCAL.writing(self.folder / _checked(key)) as temporary, temporary.open("wb") as file:
                    file.writelines(parts)
            elif size <= PART_BYTES:
                obstore.put(self._client, _checked(key), b"".join(parts), use_multipart=False)
            else:
                chunk_size = max(PART_BYTES, size // MOST_PARTS)
                obstore.put(self._client, _checked(key), iter(parts), chunk_size=chunk_size, max_concurrency=AT_ONCE)
        except (BaseError, OSError) as error:
            raise self._trouble(key, "written", error) from error

    def download(self, key: str, size: int) -> Iterator[bytes]:
        """The object at `key`, of `size` bytes, part by part; several are on their way at once."""
        coming: deque[Future[bytes]] = deque()
        with ThreadPoolExecutor(AT_ONCE) as threads:
            for start in range(0, size, PART_BYTES):
                coming.append(threads.submit(self._part, key, start, min(start + PART_BYTES, size)))
                if len(coming) == AT_ONCE:
                    yield coming.popleft().result()
            while coming:
                yield coming.popleft().result()

    def _part(self, key: str, start: int, end: int) -> bytes:
        part = self._ask("read", key, lambda: bytes(obstore.get_range(self._client, key, start=start, end=end)))
        if part is None:
            raise ClusterTrouble(f"{self.url}/{key}: is not there any more")
        return part

    def _ask(self, to_be: str, key: str, function: Callable[[], T]) -> T | None:
        """What `function` gets of the store; None where it has no such object; else ClusterTrouble."""
        for asked in range(1, READS + 1):
            try:
                return function()
            except FileNotFoundError:
                return None
            except REFUSALS as error:
                # obstore asks again for all but this: the text of a refusal, a plain 404 as well, that breaks off.
                if asked == READS or not broke_off(error):
                    raise self._trouble(key, to_be, error) from error
        raise AssertionError("unreachable")

    def _trouble(self, key: str, to_be: str, error: BaseException) -> ClusterTrouble:
        why = "its bucket is not there" if isinstance(error, FileNotFoundError) else what_is_wrong(error)
        return ClusterTrouble(f"{self.url}/{key}: cannot be {to_be}: {why}")


def _line(nonce: bytes, data: bytes) -> bytes:
    return b" ".join((*WORDS, nonce, hashlib.sha256(data).hexdigest().encode()))


def _checked(key: str) -> str:
    assert KEY.fullmatch(key), key
    assert not {"", ".", ".."} & set(key.split("/")), key
    return key


def folder_of(url: str) -> Path | None:
    """The folder that a URL or an absolute path names; None where it names a bucket."""
    if url.startswith("/"):
        return Path(url)
    parts = urlsplit(url)
    return Path(unquote(parts.path)) if parts.scheme == "file" and parts.netloc == "" and parts.path else None


def _client_of(url: str, patience: Patience) -> Any:
    parts = urlsplit(url)
    if parts.scheme not in CLIENTS or not parts.netloc or parts.query or parts.fragment:
        raise ValueError("give s3://bucket/…, gs://bucket/…, az://container/… or an absolute path")
    if "@" in parts.netloc:
        raise ValueError("keys belong into the environment, not into a URL that goes on record")
    return CLIENTS[parts.scheme](
        parts.netloc,
        prefix=parts.path.strip("/") or None,
        client_options={
            "allow_http": True,  # for an endpoint that the environment names so; every store's own has https
            "connect_timeout": timedelta(seconds=5),
            "timeout": timedelta(seconds=patience.one_request),
        },
        retry_config={
            "max_retries": patience.retries,
            "retry_timeout": timedelta(seconds=patience.in_all),
            "backoff": {"max_backoff": timedelta(seconds=patience.longest_pause)},
        },
    )
