"""A real server in a thread, and requests to it."""

import asyncio
import io
import json
import threading
import time
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPResponse
from pathlib import Path
from typing import Any
from urllib.parse import quote

import uvloop

from penstock.app import Running, build

HANDLERS = Path(__file__).with_name("handlers.py")


@dataclass
class Answer:
    """What came back."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def code(self) -> str:
        """The code of a problem, which it must be."""
        assert self.headers["content-type"] == "application/problem+json", self.body
        problem = self.json()
        assert problem["status"] == self.status
        assert problem["title"]
        assert problem["detail"]
        return str(problem["type"].removeprefix("/problems/"))


class Server:
    """Run a server over a data directory until it is closed."""

    def __init__(self, data: Path, host: str = "127.0.0.1", port: int = 0) -> None:
        self.data, self._at = data, (host, port)
        self._ready = threading.Event()
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._run)
        self._thread.start()
        self._ready.wait()
        if self._failure is not None:
            self._thread.join()
            raise self._failure

    def _run(self) -> None:
        try:
            with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
                runner.run(self._serve())
        except BaseException as failure:
            self._failure = failure
            self._ready.set()

    async def _serve(self) -> None:
        self.loop = asyncio.get_running_loop()
        self._stop = asyncio.Event()
        async with build(self.data, *self._at) as running:
            self.running: Running = running
            self.port = int(running.url.rpartition(":")[2])
            self._ready.set()
            await self._stop.wait()

    def stop(self) -> None:
        """Begin to stop."""
        self.loop.call_soon_threadsafe(self._stop.set)

    def close(self) -> None:
        """Stop, and wait until it has."""
        if self._thread.is_alive():
            self.stop()
        self._thread.join()
        if self._failure is not None:
            raise self._failure

    # requests ---------------------------------------------------------------------------------------------------------
    def headers(self, extra: Mapping[str, str] | None = None) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.running.token}", **(extra or {})}

    def open(
        self, method: str, path: str, body: Any = None, headers: Mapping[str, str] | None = None
    ) -> tuple[HTTPConnection, HTTPResponse]:
        """Ask, and return the connection and the answer as far as it has come."""
        connection = HTTPConnection("127.0.0.1", self.port, timeout=30)
        data = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
        connection.request(method, path, data, self.headers(headers))
        return connection, connection.getresponse()

    def ask(self, method: str, path: str, body: Any = None, headers: Mapping[str, str] | None = None) -> Answer:
        """Ask, and return the whole answer."""
        connection, response = self.open(method, path, body, headers)
        try:
            return Answer(response.status, {k.lower(): v for k, v in response.getheaders()}, response.read())
        finally:
            connection.close()

    def get(self, path: str, **headers: str) -> Answer:
        return self.ask("GET", path, headers=headers)

    def post(self, path: str, body: Any = None, **headers: str) -> Answer:
        return self.ask("POST", path, body, headers)

    def put(self, path: str, body: Any = None) -> Answer:
        return self.ask("PUT", path, body)

    def deploy(self, function: str, handler: str | None = None, **settings: Any) -> None:
        """Deploy one of `handlers.py`, named as the function if not otherwise."""
        written = json.dumps({"handler": f"handlers:{handler or function}", **settings})
        answer = self.put(f"/v1/functions/{function}/code?settings={quote(written)}", bundle())
        assert answer.status == 200, answer.body

    def make(self, pipeline: str, function: str, **settings: Any) -> None:
        """Make a pipeline."""
        answer = self.put(f"/v1/pipelines/{pipeline}", {"function": function, **settings})
        assert answer.status in {200, 201}, answer.body

    def send(self, pipeline: str, *payloads: Any) -> list[str]:
        """Send tasks and return their ids."""
        answer = self.post(f"/v1/pipelines/{pipeline}/tasks", [{"payload": payload} for payload in payloads])
        assert answer.status == 202, answer.body
        ids: list[str] = answer.json()["ids"]
        return ids

    def wait(self, task: str) -> Any:
        """Return a task when it has ended."""
        answer = self.get(f"/v1/tasks/{task}?wait=20s")
        assert answer.status == 200, answer.body
        assert answer.json()["state"] in {"done", "dead", "cancelled", "expired"}, answer.body
        return answer.json()


def until(happened: Callable[[], object], within: float = 30.0) -> None:
    """Return when something has happened. Raises `TimeoutError` if it does not."""
    deadline = time.monotonic() + within
    while not happened():
        if time.monotonic() > deadline:
            raise TimeoutError(f"it did not happen within {within} s")


def bundle(files: Mapping[str, str] | None = None) -> bytes:
    """Return a zip of files, or of the handlers."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        for name, text in (files or {"handlers.py": HANDLERS.read_text()}).items():
            archive.writestr(name, text)
    return packed.getvalue()
