"""Begin and run empty tasks in a zygote before it forks: instances need not find out what Python learns by running code.

What code learns (specialised instructions, attribute caches, symbols of libraries, free lists) lies in memory that a fork
shares until it is written to. Learnt here it is shared by all instances; learnt there it costs each of them a page fault
and a page of its own for everything that it touches: half of what the start of an instance costs.
"""

import os
import socket
import threading
from typing import Any

from penstock.runtime import kernel
from penstock.runtime.channel import Channel
from penstock.runtime.context import Place
from penstock.runtime.output import Output
from penstock.runtime.serial import Serial
from penstock.runtime.settings import Settings
from penstock.runtime.wire import encode_define, encode_hello, encode_open, encode_stop

ROUNDS = 24
"""Tasks that are run: CPython 3.11 looks at a function after 8 calls, and at an instruction a few calls later."""

_VARIABLE = "PENSTOCK_INSTANCE"  # instances have it, zygotes have not


def rehearse(settings: Settings) -> None:
    """Serve some tasks that do nothing, over a socket whose other end is here too. No thread and no loop is left of it."""
    for _ in range(ROUNDS):
        _begin(settings)
    ours, theirs = socket.socketpair()
    nowhere = os.open(os.devnull, os.O_WRONLY)
    with ours, theirs:
        channel = Channel(theirs)
        output = Output(channel.send, nowhere, os.devnull)
        place = Place(settings.function, settings.version, settings.memory, "", output)
        channel.send(encode_hello(os.getpid(), 0.0))
        ours.send(encode_define(0, "", b"{}") + b"".join(map(_task, range(ROUNDS))) + encode_stop())
        Serial(channel, _nothing, place, 1).serve()
        output.flush()
    os.close(nowhere)


def _begin(settings: Settings) -> None:
    """Do what an instance does before it serves, as far as that leaves nothing behind."""
    if threading.active_count() == 1 and hasattr(
        threading, "_after_fork"
    ):  # Python calls it in every process that was forked
        threading._after_fork()
    kernel.die_with(os.getppid())
    os.environ[_VARIABLE] = ""
    del os.environ[_VARIABLE]
    ours, theirs = socket.socketpair()
    with ours, theirs:
        channel = Channel(socket.socket(fileno=os.dup(theirs.fileno())))
        output = Output(channel.send, -1, os.devnull)
        place = Place(settings.function, settings.version, settings.memory, "", output, None)
        Serial(channel, _nothing, place, 1).prepare()
        channel.abandon()


def _task(attempt: int) -> bytes:
    return encode_open(attempt, attempt, 1, attempt % 2 == 0, 1.0, 0, 2, b"{}")


def _nothing(event: Any, context: Any) -> None:
    """Be a handler."""
