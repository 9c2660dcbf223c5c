"""Submitting a command to a Ray cluster as a job, through Ray's job SDK: sending what it needs, following it.

Only what is passed here is sent: no environment variable of the submitter goes along. What logs the job in anywhere
(a hub, a tracking server) belongs to the cluster, since everybody who can see its dashboard can read a job's settings.
"""

import asyncio
import logging
import os
import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cluster.errors import ClusterTrouble, UserError
from cluster.on_ray.ray_private import server_version
from cluster.text import plain, said_by

if TYPE_CHECKING:
    from ray.job_submission import JobSubmissionClient

MOST_BYTES = 100 * 2**20
"""Of one package: more Ray's job server does not take, in whatever many files."""
STOP_SECONDS = 120
"""So long a job that is stopped may take to end in order before Ray kills it. Ray's own default is 3."""
RECONNECT_SECONDS = 2.0
GONE_SECONDS = 600.0
"""So long the cluster may not answer before following ends: a tunnel breaks, a head is busy."""


@dataclass(frozen=True)
class Ended:
    """How a job ended: `exit_code` is its command's, None where it was stopped or never ran; `said` is Ray's word."""

    exit_code: int | None
    was_stopped: bool
    said: str


class Jobs:
    """The jobs of the cluster whose dashboard is at `address`. UserError where there is none that we can use."""

    def __init__(self, address: str) -> None:
        self.address = address.rstrip("/")
        if not self.address.startswith(("http://", "https://")):
            raise UserError(f"--address {address}: give that of the head's dashboard, such as http://head:8265")
        # Ray prefers these to the address that it is given.
        os.environ["RAY_API_SERVER_ADDRESS"] = self.address
        self._client = self._connect()

    def _connect(self) -> "JobSubmissionClient":
        import ray
        from ray.exceptions import AuthenticationError
        from ray.job_submission import JobSubmissionClient
        from requests.exceptions import RequestException

        for handler in logging.getLogger("ray").handlers:
            handler.setLevel(logging.WARNING)  # each package that is sent, each connection that ends
        try:
            client = JobSubmissionClient(self.address)
        except AuthenticationError as error:
            raise UserError(
                f"the Ray cluster at {self.address} does not let us in: {_reason(error)}."
                " Set RAY_AUTH_MODE=token, and RAY_AUTH_TOKEN or ~/.ray/auth_token to the cluster's token"
            ) from error
        except ConnectionError as error:
            raise UserError(f"no Ray cluster answers at {self.address}: {said_by(error)}") from error
        except (RequestException, RuntimeError, ValueError, KeyError) as error:
            raise UserError(f"{self.address} is no dashboard of a Ray cluster: {said_by(error)}") from error
        theirs = server_version(client)
        if _release(theirs) != _release(ray.__version__):
            raise UserError(
                f"the cluster at {self.address} runs Ray {theirs}, and this is Ray {ray.__version__}:"
                " have the same release in both places"
            )
        return client

    def next_id(self, stem: str) -> tuple[str, bool]:
        """An id that is not used yet, `stem-1`, `stem-2`, …, or that of a job that still runs, and whether one does.

        Ray takes each id only once.
        """
        numbers = {}
        for job in self._client.list_jobs():
            head, _, number = (job.submission_id or "").rpartition("-")
            if head == stem and number.isdigit():
                numbers[int(number)] = job
        running = [number for number, job in numbers.items() if not job.status.is_terminal()]
        return (f"{stem}-{max(running)}", True) if running else (f"{stem}-{max(numbers, default=0) + 1}", False)

    def is_running(self, job: str) -> bool:
        """Whether there is such a job and it has not ended. UserError where it has: its id cannot be used again."""
        status = {one.submission_id: one.status for one in self._client.list_jobs()}.get(job)
        if status is not None and status.is_terminal():
            raise UserError(f"--submission-id {job}: was used already, and Ray takes each only once: give another")
        return status is not None

    def submit(self, job: str, command: Sequence[str], folder: Path, packages: Sequence[Path], cpus: float) -> None:
        """Have the cluster run `command` in a copy of `folder`, with `packages` to import there and on all nodes.

        Without `cpus` it runs on the head, else wherever these are free. UserError where Ray refuses.
        """
        from ray.exceptions import RayError

        try:
            self._client.submit_job(
                submission_id=job,
                entrypoint=shlex.join(command),
                entrypoint_num_cpus=cpus or None,
                runtime_env={
                    "working_dir": str(folder),
                    "py_modules": [str(package) for package in packages],
                    "env_vars": {"RAY_JOB_STOP_WAIT_TIME_S": str(STOP_SECONDS)},
                },
            )
        except (RuntimeError, ValueError, RayError, OSError) as error:
            raise UserError(f"{self.address} did not take the job {job}: {plain(error)}") from error

    def follow(self, job: str, write: Callable[[str], Any]) -> Ended:
        """Pass on what the job says until it has ended. ClusterTrouble where the cluster no longer answers."""
        return asyncio.run(self._follow(job, write))

    async def _follow(self, job: str, write: Callable[[str], Any]) -> Ended:
        from aiohttp import ClientError

        written, silent = 0, 0.0
        while True:
            try:
                passed = 0
                async for text in self._client.tail_job_logs(job):  # from its beginning, each time
                    write(text[max(0, written - passed) :])
                    passed += len(text)
                    written, silent = max(written, passed), 0.0
                info = await asyncio.to_thread(self._client.get_job_info, job)
                if info.status.is_terminal():
                    return Ended(info.driver_exit_code, info.status.name == "STOPPED", info.message or "")
            except (ClientError, RuntimeError, OSError) as error:  # a connection that broke
                silent += RECONNECT_SECONDS
                if silent > GONE_SECONDS:
                    raise ClusterTrouble(f"the cluster at {self.address} does not answer: {said_by(error)}") from error
            await asyncio.sleep(RECONNECT_SECONDS)


def _reason(error: Exception) -> str:
    """Ray's first words about a token, without what the server said and how it goes on."""
    return said_by(error).partition(":")[0].partition(".")[0]


def _release(version: str) -> list[str]:
    return version.split(".")[:2]
