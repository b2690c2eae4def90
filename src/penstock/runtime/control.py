"""Messages between compute and a zygote: JSON objects in datagrams that keep their order, with file descriptors.

To the zygote: `{"spawn": [ids]}` with one socket per id, `{"kill": [ids]}`. From it: `{"ready": note}` or
`{"failed": message, "traceback": text}`, then `{"forked": n}` for each message with spawns, and
`{"exits": [[id, pid, code, signal, detail, overran, peak], …]}`: `overran` is how many bytes it used if it was ended for that,
else null, `peak` the most that it used.
"""

import json
import socket
from collections.abc import Sequence
from typing import Any

BATCH = 32
"""Spawns in one message: few enough that a kill never waits long behind them."""

_LARGEST = 160 * 1024  # what the default buffer of a Unix socket surely takes


def send(control: socket.socket, message: "dict[str, Any]", files: Sequence[int] = ()) -> None:
    """Send a message. Raises `BlockingIOError` if it does not fit now."""
    data = json.dumps(message).encode()
    if files:
        socket.send_fds(control, [data], files)
    else:
        control.send(data)


def receive(control: socket.socket) -> "tuple[dict[str, Any] | None, list[int]]":
    """Return the next message and its files; None when the other side is gone. Raises `BlockingIOError`."""
    data, files, _, _ = socket.recv_fds(control, _LARGEST, BATCH)
    return (json.loads(data) if data else None), files
