"""Become an instance: what a forked child of a zygote does before, while and after it serves."""

import gc
import os
import socket
import sys
import time
import traceback
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NoReturn

from penstock.runtime import kernel, sandbox
from penstock.runtime.channel import Channel
from penstock.runtime.context import Place
from penstock.runtime.guards import Guard
from penstock.runtime.handlers import interface_of, is_async
from penstock.runtime.output import Output, Writer
from penstock.runtime.serial import Serial
from penstock.runtime.settings import Settings
from penstock.runtime.threads import Threads
from penstock.runtime.turns import Turns
from penstock.runtime.wire import LOG, encode_hello

if TYPE_CHECKING:
    from penstock.runtime.serving import Serving


def live(
    number: int,
    descriptor: int,
    settings: Settings,
    note: str,
    zygote: int,
    find: Callable[[], Callable[..., Any]],
    guard: Guard,
    scope: "int | None",
) -> NoReturn:
    """Serve as instance `number` over a socket until told to stop; never returns.

    `find` returns the handler; it imports the user's module if the zygote has not. A `note` is for the user. The `guard`
    keeps the instance within its memory, the `scope` keeps others from its signals.
    """
    code = 1
    try:
        os.setsid()
        kernel.die_with(zygote)
        os.set_inheritable(descriptor, False)
        home = f"{settings.instances}/{number}.{os.getpid()}"
        file, tmpdir = _move_in(home, number)
        guard.enter(number)
        sandbox.separate(scope)
        gc.enable()
        _reseed()
        channel = Channel(socket.socket(fileno=descriptor))
        output = Output(channel.send, file, f"{home}/box")
        Writer.output = output
        os.register_at_fork(after_in_child=lambda: _forget(output, channel))
        handler = find()
        turns = Turns(f"{home}/turns", settings.slots) if settings.slots > 1 else None
        place = Place(settings.function, settings.version, settings.memory, tmpdir, output, turns)
        serving = way_for(handler, settings)(channel, handler, place, settings.slots)
        if note:
            output.write(LOG, note + "\n")
        serving.prepare()
        channel.send(encode_hello(os.getpid(), time.monotonic()))
        serving.serve()
        output.flush()
        channel.send(output.raw(0))
        code = 0
        channel.end_process(0)
    except BaseException:
        Writer.output = None
        traceback.print_exc()
    finally:
        os._exit(code)


def _move_in(home: str, number: int) -> "tuple[int, str]":
    """Make the instance's own folder; return the file behind descriptors 1 and 2, and the path of its tmpdir."""
    tmpdir = f"{home}/tmp"
    os.mkdir(home, 0o700)
    os.mkdir(tmpdir, 0o700)
    file = os.open(f"{home}/output", os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
    os.dup2(file, 1)
    os.dup2(file, 2)
    # One by one: `update` would ask abstract base classes, which touch a lot of memory that is shared until then.
    os.environ["TMPDIR"] = os.environ["HOME"] = tmpdir
    os.environ["PENSTOCK_INSTANCE"] = str(number)
    tempfile = sys.modules.get("tempfile")
    if tempfile is not None:
        tempfile.tempdir = None  # type: ignore[attr-defined]
    return file, tmpdir


def _reseed() -> None:
    """Give this instance its own random numbers; all instances of a zygote would draw the same ones."""
    for name in ("random", "numpy.random"):
        module = sys.modules.get(name)
        if module is not None:
            module.seed()


def _forget(output: Output, channel: Channel) -> None:
    """Leave the instance's line alone in a process that the handler forked."""
    output.forked = True
    channel.abandon()


def way_for(handler: Callable[..., Any], settings: Settings) -> "type[Serving]":
    """Return the way to serve a handler. What it needs is imported only for those who use it."""
    web = interface_of(handler, settings.web)
    if web == "asgi":
        from penstock.runtime.asgi import Asgi  # noqa: PLC0415

        return Asgi
    if web == "wsgi":
        from penstock.runtime.wsgi import Wsgi  # noqa: PLC0415

        return Wsgi
    if web == "apigateway":
        from penstock.runtime.apigateway import Gateway  # noqa: PLC0415

        return Gateway
    if is_async(handler):
        from penstock.runtime.coroutines import Coroutines  # noqa: PLC0415

        return Coroutines
    return Serial if settings.slots == 1 else Threads
