"""Apps that are hosted in these tests, in several frameworks and in none."""

import asyncio
import hashlib
import os
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from typing import Any

from django import setup
from django.conf import settings
from django.core.handlers.wsgi import WSGIHandler
from django.http import JsonResponse
from django.urls import path
from fastapi import FastAPI, Request, Response, WebSocket
from flask import Flask
from flask import request as asked
from starlette.responses import StreamingResponse


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[dict[str, Any]]:
    print("starts up")
    yield {"started_in": os.getpid()}
    print("shuts down")


fast = FastAPI(lifespan=lifespan)


@fast.get("/")
async def seen(request: Request) -> Any:
    scope = request.scope
    return {
        "url": str(request.url), "path": scope["path"], "raw_path": scope["raw_path"].decode(), "root": scope["root_path"],
        "client": scope["client"][0], "scheme": scope["scheme"], "headers": scope["headers"],
        "here": request.state.started_in == os.getpid(),
    }  # fmt: skip


@fast.get("/items/{name:path}")
async def item(request: Request, name: str, q: str = "") -> Any:
    return {"name": name, "q": q, "raw_path": request.scope["raw_path"].decode()}


@fast.post("/digest")
async def digest(request: Request) -> Any:
    size, found = 0, hashlib.sha256()
    async for piece in request.stream():
        size += len(piece)
        found.update(piece)
    return {"size": size, "digest": found.hexdigest()}


@fast.get("/counting")
async def counting(pieces: int, size: int = 1, pause: float = 0.0) -> Response:
    async def body() -> AsyncIterator[bytes]:
        for number in range(pieces):
            yield b"%d" % (number % 10) * size
            if pause:
                await asyncio.sleep(pause)

    return StreamingResponse(body())


@fast.get("/fails")
async def fails() -> None:
    raise ValueError("on purpose")


@fast.get("/sleeps")
async def sleeps(seconds: float) -> float:
    await asyncio.sleep(seconds)
    return seconds


@fast.get("/prints")
async def prints() -> str:
    print("printed in a request")
    return "ok"


@fast.get("/pid")
async def pid() -> int:
    return os.getpid()


@fast.get("/exits")
async def exits() -> None:
    os._exit(3)


def event(event: Any, context: Any) -> Any:
    return event


def three(first: Any, second: Any, third: Any) -> Any:
    return first


async def bare(scope: dict[str, Any], receive: Any, send: Any) -> None:
    """Be an app without a framework and a lifespan; the path says what it does."""
    if scope["type"] == "lifespan":
        raise RuntimeError("no lifespan")
    ways = {
        "/no-start": _no_start, "/nothing": _nothing, "/half": _half, "/huge-head": _huge_head, "/split": _split,
        "/longer": _longer, "/odd-length": _odd_length, "/at-once": _at_once, "/swallows": _swallows, "/floods": _floods,
    }  # fmt: skip
    await ways[scope["path"].removeprefix(scope["root_path"])](receive, send)


async def _start(send: Any, *headers: tuple[bytes, bytes]) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": list(headers)})


async def _no_start(receive: Any, send: Any) -> None:
    await send({"type": "http.response.body", "body": b"too soon"})


async def _nothing(receive: Any, send: Any) -> None:
    pass


async def _half(receive: Any, send: Any) -> None:
    await _start(send)
    await send({"type": "http.response.body", "body": b"the first half", "more_body": True})
    raise RuntimeError("in the middle")


async def _huge_head(receive: Any, send: Any) -> None:
    await _start(send, (b"x-huge", b"x" * 1_000_000))
    await send({"type": "http.response.body", "body": b""})


async def _split(receive: Any, send: Any) -> None:
    await _start(send, (b"x-split", b"1\r\nset-cookie: stolen=1"))
    await send({"type": "http.response.body", "body": b""})


async def _longer(receive: Any, send: Any) -> None:
    await _start(send, (b"content-length", b"3"))
    await send({"type": "http.response.body", "body": b"longer than that"})


async def _odd_length(receive: Any, send: Any) -> None:
    await _start(send, (b"Content-Length", b"three"))
    await send({"type": "http.response.body", "body": b"123", "more_body": True})


async def _at_once(receive: Any, send: Any) -> None:
    await _start(send, (b"content-length", b"4"))
    await send({"type": "http.response.body", "body": b"done"})


async def _swallows(receive: Any, send: Any) -> None:
    while True:
        with suppress(asyncio.CancelledError):
            await asyncio.sleep(3600)


FLOODED = 0


async def _floods(receive: Any, send: Any) -> None:
    """Send as fast as it can be taken, for ever; print how much it was when that ends."""
    sent = 0
    await _start(send)
    try:
        while True:
            await send({"type": "http.response.body", "body": b"x" * 65_536, "more_body": True})
            sent += 65_536
    finally:
        print(f"flooded {sent}")


# WebSockets -----------------------------------------------------------------------------------------------------------
@fast.websocket("/echo")
async def echo(socket: WebSocket) -> None:
    chosen = socket.scope["subprotocols"][0] if socket.scope["subprotocols"] else None
    await socket.accept(chosen, [(b"x-hello", b"you")])
    try:
        while True:
            message = await socket.receive()
            if message["type"] == "websocket.disconnect":
                break
            if message.get("text") == "close":
                await socket.close(4001, "as you wish")
                break
            if message.get("text") == "fail":
                raise ValueError("on purpose")
            if message.get("text") == "exit":
                os._exit(3)
            await socket.send({**message, "type": "websocket.send"})
    finally:
        print(f"left with {message.get('code')}")


@fast.websocket("/closes")
async def closes(socket: WebSocket, code: int, reason: str) -> None:
    await socket.accept()
    await socket.close(code, reason)


@fast.websocket("/refuses")
async def refuses(socket: WebSocket) -> None:
    await socket.close()


@fast.websocket("/answers")
async def answers(socket: WebSocket) -> None:
    await socket.send_denial_response(Response(b"not you", 418))


@fast.websocket("/counts")
async def counts(socket: WebSocket) -> None:
    """Send as fast as it can be taken."""
    await socket.accept()
    sent = 0
    try:
        while True:
            await socket.send_bytes(b"x" * 50_000)
            sent += 50_000
    finally:
        print(f"counted {sent}")


@fast.websocket("/never")
async def never(socket: WebSocket) -> None:
    await asyncio.sleep(3600)


# WSGI -----------------------------------------------------------------------------------------------------------------
def wsgi(environ: dict[str, Any], start_response: Any) -> Any:
    asked_for = environ["PATH_INFO"]
    if asked_for == "/closes":
        return Closing(start_response)
    if asked_for == "/fails":
        raise ValueError("on purpose")
    if asked_for == "/sleeps":
        time.sleep(3600)
    if asked_for == "/digest":
        found = hashlib.sha256()
        while piece := environ["wsgi.input"].read(100_000):
            found.update(piece)
        start_response("200 OK", [])
        return [found.hexdigest().encode()]
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [f"{environ['SCRIPT_NAME']}|{asked_for}|{environ['QUERY_STRING']}|{environ['REMOTE_ADDR']}".encode()]


def _flask() -> Any:
    app = Flask(__name__)

    @app.post("/form")
    def form() -> Any:
        return {"form": asked.form, "files": {name: len(file.read()) for name, file in asked.files.items()}}

    @app.get("/url")
    def url() -> Any:
        return {"url": asked.url, "root": asked.script_root, "path": asked.path, "client": asked.remote_addr}

    @app.get("/lines")
    def lines() -> Any:
        return (f"{number}\n" for number in range(1000))

    return app


def _django() -> Any:
    if not settings.configured:
        settings.configure(ALLOWED_HOSTS=["*"], ROOT_URLCONF=__name__, SECRET_KEY="x", DEBUG=False)
        setup()

    def posted(request: Any, name: str) -> Any:
        return JsonResponse({"name": name, "body": request.body.decode(), "url": request.build_absolute_uri()})

    urlpatterns.append(path("posted/<name>", posted))
    return WSGIHandler()


urlpatterns: list[Any] = []
flask = _flask()
django = _django()


class Closing:
    """Stream for ever, and print when it is closed."""

    def __init__(self, start_response: Any) -> None:
        start_response("200 OK", [("Content-Type", "text/plain")])

    def __iter__(self) -> Iterator[bytes]:
        while True:
            yield b"x" * 10_000

    def close(self) -> None:
        print("closed")
