"""Frames that make no sense: code inside an instance can write what it likes to its line, and harms nobody by it."""

from pathlib import Path

import pytest
from tests.conformance.compute_world import Heard, LocalWorld, blueprint, exercise, result_of, run_of

from penstock.compute.protocol import Compute
from penstock.runtime.heads import RequestHead, pack_request
from penstock.runtime.packing import CHUNK, WINDOW

CODE = f"""
import math, os, time
from penstock.runtime import wire
from penstock.runtime.wire_web import encode_close, encode_head, encode_piece

FRAMES = {{
    "started never": wire.encode_started(1, math.nan),
    "started in future": wire.encode_started(1, 1e300),
    "ended in future": wire.encode_end(1, wire.OK, 0.0, 1e300, None, "", 2, b"{{}}"),
    "ended never": wire.encode_end(1, wire.OK, math.nan, 0.0, None, "", 2, b"{{}}"),
    "later for ever": wire.encode_end(1, wire.THROTTLED, 0.0, 0.0, math.inf, "", 2, b"{{}}"),
    "error of bytes": wire.encode_end(1, wire.ERROR, 0.0, 0.0, None, "", 3, b"\\xff{{{{"),
    "error of nothing": wire.encode_end(1, wire.ERROR, 0.0, 0.0, None, "", 2, b"[]"),
    "error of depth": wire.encode_end(1, wire.ERROR, 0.0, 0.0, None, "", 60_000, b"[" * 60_000),
    "another's start": wire.encode_started(2, 1.0),
    "another's output": wire.encode_log(2, 0, b"forged"),
}}


def write(frames):
    for name in os.listdir("/proc/self/fd"):
        try:
            if os.readlink(f"/proc/self/fd/{{name}}").startswith("socket:"):
                os.set_blocking(int(name), True)
                while frames:
                    frames = frames[os.write(int(name), frames):]
        except OSError:
            pass


def forge(event, context):
    write(FRAMES[event])
    if not event.startswith("another"):
        time.sleep(3600)


def wait(event, context):
    time.sleep(event)
    return "mine"


async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        raise RuntimeError
    kind = scope["path"]
    many = {{
        "/pieces": encode_piece(1, 0, b"x" * {CHUNK}), "/nothing": encode_piece(1, 0, b""),
        "/heads": encode_head(1, 200, b"x\\nx"), "/closes": encode_close(1, 1000, ""),
    }}[kind]
    write(many * ({WINDOW} * 3 // max(1, len(many) if kind == "/pieces" else 1)))
    time.sleep(3600)
"""


@pytest.mark.parametrize(
    ("what", "says"),
    [
        ("started never", "yet to come"),
        ("started in future", "yet to come"),
        ("ended in future", "yet to come"),
        ("ended never", "yet to come"),
        ("later for ever", "tried again in inf s"),
        ("error of bytes", "error that cannot be read"),
        ("error of nothing", "error that cannot be read"),
        ("error of depth", "error that cannot be read"),
    ],
)
def test_what_cannot_be_ends_the_instance(tmp_path: Path, what: str, says: str) -> None:
    async def body(compute: Compute, heard: Heard) -> None:
        instance = compute.launch(blueprint("forge"))
        instance.run([run_of(1, what)])
        assert says in (await heard.exit_of(instance)).detail
        assert not heard.ends

    exercise(LocalWorld(), tmp_path, body, CODE)


def test_nobody_speaks_for_a_task_of_another_instance(tmp_path: Path) -> None:
    async def body(compute: Compute, heard: Heard) -> None:
        honest, forger = compute.launch(blueprint("wait")), compute.launch(blueprint("forge"))
        honest.run([run_of(2, 3600)])
        await heard.until(lambda: honest.id in heard.alive)
        for number, what in enumerate(("another's start", "another's output"), 10):
            forger.run([run_of(number, what)])
            (end,) = await heard.end_of(number)
            assert result_of(end) is None
        assert heard.text(2) == ""
        assert heard.text(0) == "forged"
        assert 2 not in heard.starts

    exercise(LocalWorld(), tmp_path, body, CODE)


@pytest.mark.parametrize("kind", ["pieces", "nothing", "heads", "closes"])
def test_an_app_that_keeps_to_no_window_is_ended(tmp_path: Path, kind: str) -> None:
    path = f"/{kind}".encode()
    head = RequestHead("GET", path, b"", "1.1", "http", ("", 0), ("", 0), "", [], [])

    async def body(compute: Compute, heard: Heard) -> None:
        instance = compute.launch(blueprint("app", 2))
        instance.run([run_of(1, head=pack_request(head))])
        assert "more than its client has room for" in (await heard.exit_of(instance)).detail

    exercise(LocalWorld(), tmp_path, body, CODE)
