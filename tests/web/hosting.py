"""Deploy apps to a real server and ask them."""

import json
import socket
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
from tests.api.serving import Server, bundle, until

APPS = Path(__file__).with_name("apps.py")


class Host:
    """Be a server that hosts `apps.py`."""

    def __init__(self, server: Server) -> None:
        self.server = server

    def deploy(self, name: str, app: str, **settings: Any) -> str:
        """Deploy an app for everybody, and return its URL."""
        written = {"handler": f"apps:{app}", "public": True, "max_parallel_requests": 10, **settings}
        answer = self.server.put(
            f"/v1/functions/{name}/code?settings={quote(json.dumps(written))}", bundle({"apps.py": APPS.read_text()})
        )
        assert answer.status == 200, answer.body
        return self.url(name)

    def url(self, name: str, path: str = "") -> str:
        """Return the URL of an app."""
        return f"http://127.0.0.1:{self.server.port}/web/{name}{path}"

    def function(self, name: str) -> Any:
        """Return what the server tells of a function."""
        return self.server.get(f"/v1/functions/{name}").json()

    def said(self, name: str) -> str:
        """Return what an app has printed."""
        lines = self.server.get(f"/v1/logs?function={name}&limit=1000").json()["lines"]
        return "".join(line["text"] for line in lines)

    def says(self, name: str, text: str) -> None:
        """Return when an app has printed something."""
        until(lambda: text in self.said(name))

    def idle(self, name: str) -> None:
        """Return when nothing runs in an app any more."""
        until(lambda: not self.function(name)["web"]["open"])

    def dial(self, name: str, path: str, *lines: str, method: str = "GET") -> socket.socket:
        """Open a connection of our own, and send the head of a request."""
        line = socket.create_connection(("127.0.0.1", self.server.port), timeout=30)
        head = (f"{method} /web/{name}{path} HTTP/1.1", f"host: 127.0.0.1:{self.server.port}", *lines, "", "")
        line.sendall("\r\n".join(head).encode())
        return line


def get(url: str, **arguments: Any) -> httpx.Response:
    """Ask, and wait for the whole answer."""
    return httpx.get(url, timeout=30, **arguments)
