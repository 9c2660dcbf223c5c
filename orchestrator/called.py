"""How a command was called and how it ends: the exit codes, each with one line, and how to go on.

Exit codes: 0 done; 1 the user's config, data or call is wrong; 3 stopped, and resumable with the same command.
"""

import os
import re
import shlex
import shutil
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn

import typer
from rich.console import Console

from cluster.errors import ClusterTrouble, LimitReached, TournamentError, UserError
from cluster.records import nearest

JOB_VARIABLE = "RAY_JOB_CONFIG_JSON_ENV_VAR"
"""Set by Ray in a job's entrypoint, whose current folder is a temporary copy of what was submitted."""
INTERRUPTED = 130
"""What typer makes of Ctrl-C."""


def command_name() -> str:
    """How to call us again: by our bare name where the shell finds it, else the way that was used."""
    if shutil.which("tournament"):
        return "tournament"
    called = Path(sys.argv[0])
    return f"{sys.executable} -m orchestrator" if called.name == "__main__.py" else str(called)


@contextmanager
def going_on() -> Iterator[None]:
    """When the tournament stops, say with which command it goes on. SIGTERM stops it as Ctrl-C does, from now on."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    except (ClusterTrouble, KeyboardInterrupt, OSError) as error:  # OSError: the disk is full, or went away
        reason = "interrupted" if isinstance(error, KeyboardInterrupt) else str(error)
        again = f"with the same command: {command_name()} {shlex.join(sys.argv[1:])}"
        if JOB_VARIABLE in os.environ:
            again = "by submitting it again"
        raise ClusterTrouble(f"stopped: {reason}\ngo on {again}") from error


def ended(call: Callable[[], int], commands: Sequence[str]) -> NoReturn:
    """Exit with the code that `call` comes to. `commands` are those that there are."""
    try:
        code = call()
        if code == INTERRUPTED:
            raise KeyboardInterrupt
    except typer.Exit as error:
        sys.exit(error.exit_code)
    except typer.Abort:
        sys.exit(3)
    except (UserError, LimitReached) as error:  # nothing is to be had from the same command again
        _exit(1, f"error: {error}")
    except (TournamentError, KeyboardInterrupt) as error:
        _exit(3, str(error) or "interrupted")
    except OSError as error:  # a file that somebody else may read or write, a disk that is full
        _exit(1, f"error: {error.filename}: {error.strerror}" if error.filename else f"error: {error}")
    except Exception as error:
        if not type(error).__module__.startswith(("click", "typer")):
            raise
        said = _said_of_call(error, commands)
        _exit(1, f"error: {said}" if said else "")
    sys.exit(code)


def _exit(code: int, said: str) -> NoReturn:
    if said:
        Console(stderr=True).print(said, markup=False, highlight=False, soft_wrap=True)
    sys.exit(code)


def _said_of_call(error: Exception, commands: Sequence[str]) -> str:
    """What is wrong with an option, an argument or a command's name; nothing where the help was asked for."""
    said = str(error.format_message()) if hasattr(error, "format_message") else str(error)
    wrong = re.match(r"No such command '(.*?)'", said)
    return said if wrong is None else f'there is no command "{wrong[1]}"{nearest(wrong[1], commands)}'
