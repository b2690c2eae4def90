"""Code that behaves as badly as it can: its instance ends with a clear outcome, and its neighbours do not notice."""

import asyncio
import os
import time
from pathlib import Path
from typing import Any

import psutil
import pytest
from tests.conformance.compute_world import (
    HANDLERS,
    PATIENCE,
    Heard,
    LocalWorld,
    blueprint,
    exercise,
    result_of,
    run_of,
)

from penstock.compute.protocol import Compute, Ending, Instance
from penstock.runtime.bounds import MOST_FILES, weigh
from penstock.runtime.wire import MAX_BODY

CODE = (
    HANDLERS
    + """
import json, resource, shutil, signal, subprocess


def swarm(event, context):
    while True:
        if not os.fork():
            signal.pause()


def fill(event, context):
    with open(os.path.join(context.tmpdir, "large"), "wb") as file:
        while True:
            file.write(b"x" * 1_000_000)
            file.flush()


def ignore(event, context):
    for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
        signal.signal(number, signal.SIG_IGN)
    print("deaf")
    time.sleep(3600)


def linger(event, context):
    threading.Thread(target=time.sleep, args=(3600,)).start()
    return "left one"


def orphan(event, context):
    done = os.path.join(context.tmpdir, "done")
    code = (
        "import os, time\\nos.fork() and os._exit(0)\\nos.setsid()\\nos.fork() and os._exit(0)\\n"
        "open(os.environ['DONE'], 'w').close()\\ntime.sleep(3600)"
    )
    subprocess.run([sys.executable, "-c", code], env={"MARK": event, "DONE": done}, check=True)
    while not os.path.exists(done):
        time.sleep(0.01)


def huge(event, context):
    return "x" * event


def close_all(event, context):
    os.closerange(0, 256)
    time.sleep(3600)


def litter_the_line(event, context):
    for name in os.listdir("/proc/self/fd"):
        try:
            os.write(int(name), b"\\xff" * 4096)
        except OSError:
            pass
    time.sleep(3600)


def lose_folder(event, context):
    shutil.rmtree(context.tmpdir)
    os.makedirs("/tmp", exist_ok=True)


def recurse(event, context):
    return recurse(event, context)


def deep(event, context):
    held = []
    for _ in range(100_000):
        held = [held]
    return held


def tinker(event, context):
    import gc
    gc.disable()
    sys.setrecursionlimit(200)
    resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGCHLD):
        signal.signal(number, signal.SIG_DFL)
    sys.stdout = sys.stderr = None


def gibberish(event, context):
    os.write(1, b"\\xff\\xfe raw\\n")
    sys.stdout.buffer.write(b"\\xc3( bytes\\n")
    print("\\udcff lone")


def change(event, context):
    os.environ["LEFT"] = "behind"
    os.chdir(context.tmpdir)


def see(event, context):
    return [os.environ.get("LEFT"), os.getcwd() == context.tmpdir]
"""
)


async def neighbour_of(compute: Compute, heard: Heard) -> Instance:
    """Return an instance beside the bad one, in which a task runs all the time."""
    neighbour = compute.launch(blueprint("sleep", 2))
    neighbour.run([run_of(900, 3600)])
    await heard.until(lambda: neighbour.id in heard.alive)
    return neighbour


async def still_works(heard: Heard, neighbour: Instance) -> None:
    neighbour.run([run_of(901, 0)])
    (end,) = await heard.end_of(901)
    assert end.ending is Ending.OK
    assert 900 not in heard.ends
    assert neighbour.id not in heard.exits


@pytest.mark.parametrize(
    ("handler", "says", "settings"),
    [
        ("swarm", "more than 40 processes", {"max_processes": 40}),
        ("fill", "more than 20000000 bytes in its folder", {"tmpdir": 20_000_000}),
    ],
)
def test_what_takes_too_much_is_ended_and_says_why(
    tmp_path: Path, handler: str, says: str, settings: dict[str, Any]
) -> None:
    async def body(compute: Compute, heard: Heard) -> None:
        neighbour = await neighbour_of(compute, heard)
        instance = compute.launch(blueprint(handler, **settings))
        instance.run([run_of(1)])
        gone = await heard.exit_of(instance)
        assert says in gone.detail
        assert (gone.killed, gone.overran) == (False, None)
        await still_works(heard, neighbour)

    exercise(LocalWorld(), tmp_path, body, CODE)


def test_a_handler_that_ignores_every_signal_is_ended(tmp_path: Path) -> None:
    async def body(compute: Compute, heard: Heard) -> None:
        instance = compute.launch(blueprint("ignore"))
        instance.run([run_of(1)])
        await heard.until(lambda: "deaf" in heard.text(1))
        instance.kill()
        assert (await heard.exit_of(instance)).killed

    exercise(LocalWorld(), tmp_path, body, CODE)


def test_threads_that_never_end_do_not_keep_an_instance(tmp_path: Path) -> None:
    async def body(compute: Compute, heard: Heard) -> None:
        instance = compute.launch(blueprint("linger"))
        instance.run([run_of(1)])
        (end,) = await heard.end_of(1)
        assert result_of(end) == "left one"
        instance.stop()
        assert (await heard.exit_of(instance)).code == 0

    exercise(LocalWorld(), tmp_path, body, CODE)


@pytest.mark.parametrize("how", ["stop", "kill"])
def test_an_orphan_without_a_trace_ends_with_its_instance(tmp_path: Path, how: str) -> None:
    """It has another session, no parent, and nothing of its instance's environment."""

    async def body(compute: Compute, heard: Heard) -> None:
        instance = compute.launch(blueprint("orphan"))
        instance.run([run_of(1, str(tmp_path))])
        await heard.end_of(1)
        (orphan,) = (one for one in psutil.process_iter() if variable(one, "MARK") == str(tmp_path))
        getattr(instance, how)()
        await heard.exit_of(instance)
        until = time.monotonic() + PATIENCE
        while orphan.is_running() and orphan.status() != psutil.STATUS_ZOMBIE:
            assert time.monotonic() < until
            await asyncio.sleep(0.01)

    exercise(LocalWorld(), tmp_path, body, CODE)


def variable(process: psutil.Process, name: str) -> str | None:
    try:
        return process.environ().get(name)
    except psutil.Error:
        return None


@pytest.mark.parametrize("slots", [1, 2])
def test_a_result_that_is_too_large_is_an_error(tmp_path: Path, slots: int) -> None:
    async def body(compute: Compute, heard: Heard) -> None:
        instance = compute.launch(blueprint("huge", slots))
        instance.run([run_of(1, 100_000_000)])
        (end,) = await heard.end_of(1)
        assert end.ending is Ending.ERROR
        assert len(end.body) < 10_000
        assert str(MAX_BODY) in result_of(end)["message"]
        instance.run([run_of(2, 3)])
        (end,) = await heard.end_of(2)
        assert result_of(end) == "xxx"

    exercise(LocalWorld(), tmp_path, body, CODE)


@pytest.mark.parametrize("handler", ["close_all", "litter_the_line"])
def test_an_instance_without_a_line_is_ended(tmp_path: Path, handler: str) -> None:
    async def body(compute: Compute, heard: Heard) -> None:
        neighbour = await neighbour_of(compute, heard)
        instance = compute.launch(blueprint(handler))
        instance.run([run_of(1)])
        gone = await heard.exit_of(instance)
        assert gone.signal == 9
        await still_works(heard, neighbour)

    exercise(LocalWorld(), tmp_path, body, CODE)


@pytest.mark.parametrize("handler", ["recurse", "deep"])
def test_what_goes_too_deep_is_an_error(tmp_path: Path, handler: str) -> None:
    async def body(compute: Compute, heard: Heard) -> None:
        instance = compute.launch(blueprint(handler))
        instance.run([run_of(1), run_of(2)])
        for end in await heard.end_of(1, 2):
            assert end.ending is Ending.ERROR
            assert "ecursion" in result_of(end)["type"] + result_of(end)["message"]
        assert instance.id not in heard.exits

    exercise(LocalWorld(), tmp_path, body, CODE)


@pytest.mark.parametrize("handler", ["lose_folder", "tinker", "gibberish"])
def test_the_next_task_of_a_mistreated_instance_runs(tmp_path: Path, handler: str) -> None:
    async def body(compute: Compute, heard: Heard) -> None:
        instance = compute.launch(blueprint(handler))
        instance.run([run_of(1), run_of(2)])
        ends = await heard.end_of(1, 2)
        assert ends[0].ending is Ending.OK
        if handler == "gibberish":
            await heard.until(lambda: "lone" in heard.text(1) and "raw" in heard.text(1))
            assert "\ufffd" in heard.text(1)
        instance.stop()
        assert (await heard.exit_of(instance)).code == 0

    exercise(LocalWorld(), tmp_path, body, CODE)


def test_what_a_task_leaves_in_its_process_the_next_one_finds_and_no_other_instance(tmp_path: Path) -> None:
    code = CODE + "\n\ndef both(event, context):\n    return change(event, context) if event else see(event, context)\n"

    async def body(compute: Compute, heard: Heard) -> None:
        instance, other = (compute.launch(blueprint("both")) for _ in range(2))
        instance.run([run_of(1, True)])
        await heard.end_of(1)
        instance.run([run_of(2, False)])
        other.run([run_of(3, False)])
        left, untouched = await heard.end_of(2, 3)
        assert result_of(left) == ["behind", True]
        assert result_of(untouched) == [None, False]

    exercise(LocalWorld(), tmp_path, body, code)


def test_weighing_counts_what_the_disk_holds(tmp_path: Path) -> None:
    (tmp_path / "below").mkdir()
    (tmp_path / "below" / "file").write_bytes(b"x" * 1_000_000)
    with (tmp_path / "sparse").open("wb") as file:
        os.truncate(file.fileno(), 10**12)
    (tmp_path / "link").symlink_to("/usr")
    size, files = weigh(str(tmp_path), 10**9)
    assert 1_000_000 <= size < 1_200_000
    assert files == 4
    assert weigh(str(tmp_path / "not there"), 1) == (0, 0)
    assert files < MOST_FILES
