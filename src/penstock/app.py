"""The server as it runs: the only file that names concrete adapters.

Order is the law here. The data directory is ours and the port bound before anything starts; the engine is open before the
first connection is taken; at a stop new requests are refused, those inside are answered, then the engine closes.
"""

import asyncio
import contextlib
import gc
import json
import logging
import os
import resource
import secrets
import signal
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import uvloop

from penstock.api.doorman import Doorman
from penstock.api.forwarding import Forwarding, trusted_proxies
from penstock.api.front import Front
from penstock.api.hosting import Hosting
from penstock.api.http import HttpServer
from penstock.api.lobby import Lobby
from penstock.api.rest import make_rest
from penstock.artifacts.bundles import Bundles
from penstock.artifacts.vault import vault_of
from penstock.compute.local import LocalCompute
from penstock.compute.protocol import Compute
from penstock.domain.errors import PenstockError
from penstock.engine.engine import Engine
from penstock.links.sources import Sources
from penstock.store.sqlite import SqliteStore

PATIENCE: Final = 5.0
"""How long (seconds) a stopping server lets requests and tasks end by themselves."""

DEAD_PEERS: Final = (
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
    (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 30),
    (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 10),
    (socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 60_000),
)
"""What finds callers and readers within a minute whose machine or network has gone without a word."""

HOSTS: Final = "PENSTOCK_HOSTS"
"""The environment variable with further names of this server, separated by commas."""

log: Final = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Running:
    """Hold a server that listens."""

    url: str
    token: str
    engine: Engine
    lobby: Lobby


def serve(data: Path, host: str, port: int, ready: Callable[[str, list[str]], None]) -> None:
    """Run a server until SIGINT or SIGTERM; `ready` is called when it listens, with its URL, and with sentences that say what
    instances are kept in by this machine.

    Raises `Locked` if another server has the data directory, `OSError` if nothing can listen at the port.
    """
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    _allow_many_files()
    _collect_garbage_seldom()
    # Measured on two cores, in CPU of the server, with uvloop and with asyncio: 33 and 45 µs of HTTP for a single send, 120
    # and 149 µs for one that is stored and run, 70 and 83 µs for an invoke at 50 in flight; 21 and 20 µs for a task of a batch.
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_serve(data, host, port, ready))


async def _serve(data: Path, host: str, port: int, ready: Callable[[str, list[str]], None]) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    async with build(data, host, port) as running:
        ready(running.url, _promises(running.engine.plant.compute))
        await stop.wait()


def _promises(compute: Compute) -> list[str]:
    """Return by what means this machine keeps instances within their memory and their sandbox."""
    sandbox = compute.isolation("standard")
    promises = [f"Memory limits of instances are enforced by {compute.enforcement}."]
    if sandbox.by:
        promises.append(f"Functions run in a sandbox ({sandbox.level}): {', '.join(sandbox.by)}.")
    strict = compute.isolation("strict")
    if strict.missing:
        lacks = ", ".join(f"{part} ({why})" for part, why in strict.missing.items())
        promises.append(f"Functions with sandbox: strict are refused, as this machine lacks: {lacks}.")
    promises += [
        f"Not in that sandbox, as this machine lacks it: {part} ({why})." for part, why in sandbox.missing.items()
    ]
    return promises


@contextlib.asynccontextmanager
async def build(data: Path, host: str = "127.0.0.1", port: int = 0) -> AsyncIterator[Running]:
    """Run a server in this event loop for as long as the context lasts; port 0 takes a free one."""
    data = _data_directory(data)
    with _bound(host, port) as listening:
        url = _url_of(listening)
        token = _token_in(data)
        bundles = Bundles(data / "bundles")
        store = SqliteStore(data, vault=vault_of(data, os.environ))
        compute = LocalCompute(data / "instances", bundles.path, private=data)
        engine = Engine(store, compute, bundles, boot=_boot())
        lobby = Lobby()
        names = [name.strip() for name in os.environ.get(HOSTS, "").split(",") if name.strip()]
        doorman = Doorman(token, host, names)
        hosting = Hosting(engine, doorman, lobby, Forwarding(trusted_proxies()))
        front = Front(engine, doorman, lobby, hosting, make_rest(engine, lobby))
        server = HttpServer(front)
        sources = Sources(engine)
        await _open(engine)
        try:
            await server.start([listening])
            sources.open()
            with _announced(data, url):
                yield Running(url, token, engine, lobby)
                await lobby.close(PATIENCE)
        finally:
            await sources.close(PATIENCE)
            await engine.close(PATIENCE)
            await server.stop()


async def _open(engine: Engine) -> None:
    """Open the engine. Raises `PenstockError` if what an earlier server left running does not go."""
    try:
        await engine.open()
    except TimeoutError as error:
        raise PenstockError(
            f"The server cannot start beside what the last one left: {error}. End these processes, then start it again."
        ) from error


# the data directory ---------------------------------------------------------------------------------------------------
def _data_directory(data: Path) -> Path:
    """Return the data directory, made if it is new, which only its owner can enter."""
    try:
        data.mkdir(parents=True, exist_ok=True)
        data.chmod(0o700)
    except OSError as error:
        raise PenstockError(
            f"The data directory {data} cannot be used: {error.strerror}. Name another one with --data."
        ) from error
    return data.resolve()


def _boot() -> str:
    """Return the identity of this boot of the machine, which its monotonic clock counts from; "" if there is none."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""


def _token_in(data: Path) -> str:
    """Return the server's token, made at the first start and readable by its owner only."""
    path = data / "token"
    if not path.exists():
        _write_private(path, secrets.token_urlsafe(32) + "\n")
    path.chmod(0o600)
    token = path.read_text().strip()
    if not token:
        raise PenstockError(f"The file {path} is empty. Put a token in it, or delete it and a new one is made.")
    return token


@contextlib.contextmanager
def _announced(data: Path, url: str) -> Iterator[None]:
    """Let clients find the server by its data directory."""
    path = data / "server.json"
    _write_private(path, json.dumps({"url": url, "pid": os.getpid()}) + "\n")
    try:
        yield
    finally:
        path.unlink(missing_ok=True)


def _write_private(path: Path, text: str) -> None:
    """Write a file as a whole or not at all, readable by its owner only."""
    draft = path.with_name(path.name + ".new")
    draft.unlink(missing_ok=True)
    with open(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
        file.write(text)
    draft.rename(path)


# the network ----------------------------------------------------------------------------------------------------------
@contextlib.contextmanager
def _bound(host: str, port: int) -> Iterator[socket.socket]:
    """Bind a socket without listening yet, so that a port that is taken is known before anything starts."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (socket.gaierror, UnicodeError) as error:
        raise PenstockError(
            f"'{host}' is no address to listen at: {error}. Use 127.0.0.1, or 0.0.0.0 for all."
        ) from error
    family, kind, protocol, _, address = min(found, key=lambda each: each[0] != socket.AF_INET)
    with socket.socket(family, kind, protocol) as listening:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        for level, option, value in DEAD_PEERS:  # accepted connections inherit them
            listening.setsockopt(level, option, value)
        listening.bind(address)
        yield listening


def _url_of(listening: socket.socket) -> str:
    """Return the URL at which clients on this machine reach a socket."""
    host, port = listening.getsockname()[:2]
    if host in {"0.0.0.0", "::"}:
        host = "127.0.0.1" if host == "0.0.0.0" else "::1"
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _allow_many_files() -> None:
    """Raise the limit of open files as far as it goes: every connection takes one."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _collect_garbage_seldom() -> None:
    """Let the collector look at what was imported no more, and at the rest less often.

    Tasks leave no cycles behind, so nearly all it does is in vain. The threshold bounds how long the loop stands still for it:
    while 10,000 pipelines were applied, a look at 50,000 new objects took 10 to 35 ms, and one at 5,000 takes 1 to 4 ms.
    """
    gc.freeze()
    gc.set_threshold(5_000, 1_000, 100)
