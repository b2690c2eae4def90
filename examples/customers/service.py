"""A small real service with a quota per API key, such as many third parties have: the other end of the customers example.

    python service.py --port 7712 --quota key-of-customer-a=2 --quota key-of-customer-b=1

POST /describe takes a character, works on it for a second, and says how it is written. A key that calls more often than
its quota in any one second is answered 429 with Retry-After. GET /log tells when each call of each key arrived.
"""

import argparse
import asyncio
import json
import math
import socket
import time
from collections import deque
from contextlib import suppress
from typing import Any

import uvicorn
from fastapi import FastAPI, HTTPException, Request

TOLERANCE = 0.020
"""Seconds by which calls may come closer together on their way here than they were started."""


class Quota:
    """Allow so many calls in any second."""

    def __init__(self, per_second: int) -> None:
        self._allowed: deque[float] = deque(maxlen=per_second)

    def wait_at(self, now: float) -> float:
        """Count a call, and return 0; or return the seconds to wait, if it is one too many."""
        if len(self._allowed) == self._allowed.maxlen:
            wait = self._allowed[0] + 1.0 - TOLERANCE - now
            if wait > 0:
                return wait
        self._allowed.append(now)
        return 0.0


def service(quotas: dict[str, int], seconds_per_call: float) -> FastAPI:
    """Return the service."""
    app = FastAPI(title="Characters")
    quota_of = {key: Quota(per_second) for key, per_second in quotas.items()}
    arrivals: list[dict[str, Any]] = []

    @app.post("/describe")
    async def describe(request: Request) -> dict[str, Any]:
        arrived = time.monotonic()
        key = request.headers.get("x-api-key", "")
        if key not in quota_of:
            raise HTTPException(401, "Who are you?")
        wait = quota_of[key].wait_at(arrived)
        arrivals.append({"key": key, "at": arrived, "refused": wait > 0})
        if wait > 0:
            raise HTTPException(429, "Over your quota", {"Retry-After": str(math.ceil(wait))})
        character = str(json.loads(await request.body())["character"])
        await asyncio.sleep(seconds_per_call)
        return {"character": character, "utf8": character.encode().hex(" "), "html": f"&#{ord(character[0])};"}

    @app.get("/log")
    async def log() -> dict[str, Any]:
        return {"now": time.monotonic(), "arrivals": arrivals}

    return app


def main() -> None:
    """Serve until Ctrl-C."""
    parser = argparse.ArgumentParser(description="A small service with a quota per API key.")
    parser.add_argument("--port", type=int, default=7712, help="0 takes a free one (default: 7712)")
    parser.add_argument("--quota", action="append", default=[], metavar="KEY=N", help="N calls a second for this key")
    parser.add_argument("--seconds-per-call", type=float, default=1.0)
    options = parser.parse_args()
    quotas = {key: int(number) for key, _, number in (text.partition("=") for text in options.quota)}
    with socket.create_server(("127.0.0.1", options.port), backlog=1000) as listener:
        print(f"http://127.0.0.1:{listener.getsockname()[1]}", flush=True)
        app = service(quotas, options.seconds_per_call)
        with suppress(KeyboardInterrupt):
            uvicorn.Server(uvicorn.Config(app, log_level="warning", access_log=False)).run(sockets=[listener])


if __name__ == "__main__":
    main()
