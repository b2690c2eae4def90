"""What only real processes can do: be clean, be bounded, and leave nothing behind."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.conformance.compute_world import (
    HANDLERS,
    PATIENCE,
    Body,
    Heard,
    LocalWorld,
    batch_of,
    blueprint,
    exercise,
    result_of,
    run_of,
)
from tests.control_groups import lent

from penstock.compute.local import LocalCompute
from penstock.compute.memory import FOLDER
from penstock.compute.protocol import Compute, Ending, ImportFailed, Instance, Level, PipelineContext

CODE = (
    HANDLERS
    + """

import json, multiprocessing, random, subprocess, tempfile

print("imported")


def place(event, context):
    open(os.path.join(context.tmpdir, "mine"), "w").close()
    return {
        "environ": dict(os.environ), "cwd": os.getcwd(), "path": sys.path, "tmpdir": context.tmpdir,
        "tempfile": tempfile.gettempdir(), "files": os.listdir("/proc/self/fd"), "stdin": sys.stdin.read(),
        "penstock": penstock.__file__, "session": os.getsid(0) == os.getpid(), "argv": sys.argv,
        "status": open("/proc/self/status").read(),
    }


def draw(event, context):
    return random.random()


def below(event, context):
    print("from python")
    os.write(1, b"from the descriptor\\n")
    subprocess.run(["echo", "from a child"], check=True)
    subprocess.run([sys.executable, "-c", "print('from python below')"], check=True)
    ctypes.CDLL(None).puts(b"from C")


def fork(event, context):
    with multiprocessing.get_context("fork").Pool(2) as pool:
        return pool.map(chat, [1, 2, 3])


def chat(number):
    print("forked", number)
    return number * number


def stray(event, context):
    threading.Thread(target=lambda: print("from a thread")).start()
    time.sleep(0.05)


def litter(event, context):
    sleeper = [sys.executable, "-c", "import time; time.sleep(3600)"]
    started = [subprocess.Popen(sleeper), subprocess.Popen(sleeper, start_new_session=True)]
    started.append(subprocess.Popen(sleeper, env={}))
    print(json.dumps([os.getpid(), os.getppid(), *(child.pid for child in started)]))
    if event == "exit":
        os._exit(5)
    time.sleep(3600)


def busy(event, context):
    ctypes.PyDLL(None).sleep(3600)  # with the GIL held


def last_words(event, context):
    for number in range(3):
        print("word", number)
    os.kill(os.getpid(), signal.SIGKILL)


import signal
"""
)
Exercise = Callable[[Body], Heard]


@pytest.fixture
def run(tmp_path: Path) -> Exercise:
    return lambda body: exercise(LocalWorld(), tmp_path, body, CODE)


def with_code(folder: Path, code: str, body: Body) -> Heard:
    return exercise(LocalWorld(), folder, body, textwrap.dedent(code))


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


async def wait_until_dead(pids: list[int]) -> None:
    until = time.monotonic() + PATIENCE
    while any(map(is_alive, pids)):
        assert time.monotonic() < until, f"still alive: {[pid for pid in pids if is_alive(pid)]}"
        await asyncio.sleep(0.01)


async def one(compute: Compute, heard: Heard, handler: str, event: Any = None, slots: int = 1) -> tuple[Instance, Any]:
    """Run one execution in a fresh instance, and return what came out of it."""
    attempt = len(heard.ends) + 1
    instance = compute.launch(blueprint(handler, slots))
    instance.run([run_of(attempt, event)])
    (end,) = await heard.end_of(attempt)
    return instance, result_of(end)


def test_an_instance_sees_nothing_of_the_server(run: Exercise, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PENSTOCK_TOKEN", "secret")
    monkeypatch.setenv("PYTHONPATH", "/somewhere")

    async def body(compute: Compute, heard: Heard) -> None:
        made_from = blueprint("place", env={"MINE": "yes", "OPENBLAS_NUM_THREADS": "2"})
        instance = compute.launch(made_from)
        instance.run([run_of(1)])
        (end,) = await heard.end_of(1)
        seen = result_of(end)
        environment = seen["environ"]
        assert not {"PENSTOCK_TOKEN", "PYTHONPATH", "USER", "PWD"} & environment.keys()
        assert (environment["MINE"], environment["OPENBLAS_NUM_THREADS"], environment["OMP_NUM_THREADS"]) == (
            "yes",
            "2",
            "1",
        )
        assert seen["tmpdir"] == environment["TMPDIR"] == environment["HOME"] == seen["tempfile"]
        assert seen["cwd"] == seen["path"][0] == str(tmp_path / "bundle")
        assert not any(Path(folder).name in ("runtime", "penstock") for folder in seen["path"])
        assert (seen["stdin"], seen["session"], seen["argv"]) == ("", True, [""])
        assert "NoNewPrivs:\t1" in seen["status"]
        assert seen["penstock"] == str(Path(sys.modules["penstock"].__file__ or ""))
        assert len(seen["files"]) <= 8

    run(body)


def test_a_tmpdir_is_private_and_is_wiped(run: Exercise) -> None:
    async def body(compute: Compute, heard: Heard) -> None:
        instance, seen = await one(compute, heard, "place")
        _, other = await one(compute, heard, "place")
        home = os.path.dirname(seen["tmpdir"])
        assert os.stat(home).st_mode & 0o777 == 0o700
        assert os.listdir(seen["tmpdir"]) == ["mine"]
        assert seen["tmpdir"] != other["tmpdir"]
        instance.kill()
        await heard.exit_of(instance)
        until = time.monotonic() + PATIENCE
        while os.path.exists(home):  # noqa: ASYNC240
            assert time.monotonic() < until
            await asyncio.sleep(0.01)
        assert os.listdir(other["tmpdir"])

    run(body)


def test_close_wipes_every_folder(run: Exercise, tmp_path: Path) -> None:
    async def body(compute: Compute, heard: Heard) -> None:
        await one(compute, heard, "place")

    run(body)
    assert not list((tmp_path / "compute" / "zygotes").iterdir())


def test_instances_draw_different_random_numbers(run: Exercise) -> None:
    async def body(compute: Compute, heard: Heard) -> None:
        drawn = [(await one(compute, heard, "draw"))[1] for _ in range(4)]
        assert len(set(drawn)) == 4

    run(body)


def test_output_below_python_is_found(run: Exercise) -> None:
    async def body(compute: Compute, heard: Heard) -> None:
        await one(compute, heard, "below")
        wanted = {"from python", "from the descriptor", "from a child", "from python below", "from C"}
        assert set(heard.text(1).splitlines()) == wanted

    run(body)


def test_a_handler_may_fork(run: Exercise) -> None:
    async def body(compute: Compute, heard: Heard) -> None:
        _, result = await one(compute, heard, "fork")
        assert result == [1, 4, 9]
        assert sorted(heard.text(1).split("\n"))[1:] == ["forked 1", "forked 2", "forked 3"]

    run(body)


def test_output_of_a_thread_belongs_to_the_one_task_that_runs(run: Exercise) -> None:
    async def body(compute: Compute, heard: Heard) -> None:
        await one(compute, heard, "stray")
        assert heard.text(1) == "from a thread\n"

    run(body)


def test_a_million_lines_are_bounded_and_counted(run: Exercise) -> None:
    async def body(compute: Compute, heard: Heard) -> None:
        _, result = await one(compute, heard, "flood", 1_000_000)
        assert result == "done"
        assert len(heard.text(1)) <= 1024 * 1024
        assert heard.text(1).startswith("line 0\nline 1\n")
        assert "bytes of output were dropped" in heard.text(1, "log")

    run(body)


def test_output_is_told_while_the_handler_runs(run: Exercise) -> None:
    async def body(compute: Compute, heard: Heard) -> None:
        compute.launch(blueprint("litter")).run([run_of(1)])
        await heard.until(lambda: heard.text(1).endswith("]\n"))
        assert not heard.ends

    run(body)


def test_code_that_speaks_for_its_zygote_is_ended(tmp_path: Path) -> None:
    code = """
        import os
        for name in map(int, os.listdir("/proc/self/fd")):
            if os.path.exists(f"/proc/self/fd/{name}") and "socket:" in os.readlink(f"/proc/self/fd/{name}"):
                os.write(name, b'{"exits": [[2, "../..", 0, null, ""]]}')
                os.write(name, b"no message")
        handler = print
    """

    async def body(compute: Compute, heard: Heard) -> None:
        with pytest.raises(ImportFailed, match="makes no sense"):
            await compute.prepare(blueprint("handler"), 30.0)

    with_code(tmp_path, code, body)


@pytest.mark.parametrize(("size", "params"), [(65 * 1024 * 1024, 2), (2, 5 * 1024 * 1024)])
def test_what_no_instance_takes_is_refused(run: Exercise, size: int, params: int) -> None:
    async def body(compute: Compute, heard: Heard) -> None:
        instance = compute.launch(blueprint("echo"))
        instance.run([run_of(1, b" " * size, pipeline=PipelineContext(9, "p", b" " * params)), run_of(2, "fine")])
        refused, fine = await heard.end_of(1, 2)
        assert refused.ending is Ending.ERROR
        assert "at most" in result_of(refused)["message"]
        assert fine.ending is Ending.OK

    run(body)


@pytest.mark.parametrize("slots", [1, 3])
def test_what_was_printed_just_before_the_end_of_the_process_is_not_lost(run: Exercise, slots: int) -> None:
    async def body(compute: Compute, heard: Heard) -> None:
        instance = compute.launch(blueprint("last_words", slots))
        instance.run([run_of(1)])
        await heard.exit_of(instance)
        assert heard.text(1) == "word 0\nword 1\nword 2\n"

    run(body)


def test_a_crash_tells_where_it_was(run: Exercise) -> None:
    async def body(compute: Compute, heard: Heard) -> None:
        instance = compute.launch(blueprint("crash"))
        instance.run([run_of(1)])
        gone = await heard.exit_of(instance)
        assert "Segmentation fault" in gone.detail
        assert "in crash" in gone.detail
        assert heard.text(1) == "crashing\n"
        assert "Segmentation fault" in heard.text(1, "stderr")

    run(body)


def test_a_traceback_begins_in_the_users_code(run: Exercise) -> None:
    async def body(compute: Compute, heard: Heard) -> None:
        for handler, slots in (("fail", 1), ("fail", 2), ("fail_async", 2)):
            _, error = await one(compute, heard, handler, "no", slots)
            frames = [line for line in error["traceback"].splitlines() if line.startswith("  File")]
            assert len(frames) == 1
            assert "handlers.py" in frames[0]

    run(body)


def test_an_instance_that_holds_the_gil_does_not_answer(run: Exercise) -> None:
    async def body(compute: Compute, heard: Heard) -> None:
        made_from = blueprint("busy", 4)
        instance = compute.launch(made_from)
        instance.run([run_of(1, dated=True)])
        await heard.until(lambda: 1 in heard.starts)
        compute.ping(instance)
        neighbour = compute.launch(blueprint("hang", 4))
        compute.ping(neighbour)
        await heard.until(lambda: heard.answered)
        assert heard.answered == 1
        instance.kill()
        assert (await heard.exit_of(instance)).killed

    run(body)


def test_small_tasks_do_not_wait_for_a_large_one(run: Exercise) -> None:
    async def body(compute: Compute, heard: Heard) -> None:
        instance = compute.launch(blueprint("echo_async", 50))
        instance.run([run_of(1, "x" * 5_000_000), *(run_of(number, number) for number in range(2, 30))])
        await heard.end_of(*range(1, 30))
        ends = [attempt for what, attempt in heard.order if what == "finished"]
        assert ends[-1] == 1

    run(body)


@pytest.mark.parametrize("event", ["exit", "hang"])
def test_what_an_instance_started_goes_with_it(run: Exercise, event: str) -> None:
    async def body(compute: Compute, heard: Heard) -> None:
        instance = compute.launch(blueprint("litter"))
        instance.run([run_of(1, event)])
        await heard.until(lambda: heard.text(1).endswith("]\n"))
        pid, _, *started = json.loads(heard.text(1))
        if event == "hang":
            instance.kill()
        await heard.exit_of(instance)
        await wait_until_dead([pid, *started])

    run(body)


def test_a_module_that_fails_is_told_with_its_traceback(tmp_path: Path) -> None:
    async def body(compute: Compute, heard: Heard) -> None:
        with pytest.raises(ImportFailed) as failed:
            await compute.prepare(blueprint("handler"), 30.0)
        assert failed.value.message == "ZeroDivisionError: division by zero"
        assert "handlers.py" in failed.value.traceback
        assert "penstock/runtime" not in failed.value.traceback
        gone = await heard.exit_of(compute.launch(blueprint("handler")))
        assert "ZeroDivisionError" in gone.detail

    with_code(tmp_path, "1 / 0", body)


@pytest.mark.parametrize(
    ("code", "says"),
    [
        ("import os; os._exit(3)", "exit code 3"),
        ("import sys; sys.exit('no')", "SystemExit: no"),
        ("import ctypes; ctypes.string_at(0)", "SIGSEGV"),
        ("import nothing_like_it", "No module named 'nothing_like_it'"),
        ("handler = 5", "is not callable"),
        ("def (", "SyntaxError"),
    ],
)
def test_every_way_in_which_an_import_fails(tmp_path: Path, code: str, says: str) -> None:
    async def body(compute: Compute, heard: Heard) -> None:
        with pytest.raises(ImportFailed) as failed:
            await compute.prepare(blueprint("handler"), 30.0)
        assert says in failed.value.message

    with_code(tmp_path, code, body)


def test_a_module_with_the_name_of_one_of_python_is_told(tmp_path: Path) -> None:
    async def body(compute: Compute, heard: Heard) -> None:
        made_from = blueprint("x")
        object.__setattr__(made_from, "handler", "site:x")
        (tmp_path / "bundle" / "site.py").write_text("x = lambda event, context: event")
        with pytest.raises(ImportFailed, match="Python has a module 'site' of its own"):
            await compute.prepare(made_from, 30.0)

    with_code(tmp_path, "", body)


def test_a_handler_must_be_written_as_module_and_callable(tmp_path: Path) -> None:
    async def body(compute: Compute, heard: Heard) -> None:
        made_from = blueprint("x")
        object.__setattr__(made_from, "handler", "handlers.x")
        with pytest.raises(ImportFailed, match="module:callable"):
            await compute.prepare(made_from, 30.0)

    with_code(tmp_path, "", body)


def test_an_import_that_hangs_is_broken_off_and_tells_where_it_hangs(tmp_path: Path) -> None:
    async def body(compute: Compute, heard: Heard) -> None:
        waiting = compute.launch(blueprint("handler"))
        with pytest.raises(ImportFailed) as failed:
            await compute.prepare(blueprint("handler"), 0.5)
        assert "took longer than 0.5 s" in failed.value.message
        assert "took longer" in (await heard.exit_of(waiting)).detail

    with_code(tmp_path, "import time\n\ntime.sleep(3600)", body)


def test_a_bundle_that_is_not_there(tmp_path: Path) -> None:
    async def main() -> None:
        heard = Heard()
        compute = LocalCompute(tmp_path / "compute", lambda bundle: tmp_path / "nowhere")
        await compute.open(heard)
        with pytest.raises(ImportFailed, match="nowhere"):
            await compute.prepare(blueprint("handler"), 30.0)
        instance = compute.launch(blueprint("handler"))
        instance.run([run_of(1)])
        assert "nowhere" in (await heard.exit_of(instance)).detail
        await compute.close()

    asyncio.run(main())


@pytest.mark.parametrize(
    ("left", "says"),
    [
        ("threading.Thread(target=threading.Event().wait, daemon=True).start()", "1 thread"),
        ("pair = socket.socketpair()", "2 open sockets"),
    ],
)
def test_code_that_a_fork_would_break_is_imported_after_it(tmp_path: Path, left: str, says: str) -> None:
    code = f"""
        import os, socket, threading
        {left}
        here = os.getpid()
        def handler(event, context):
            return here == os.getpid()
    """

    async def body(compute: Compute, heard: Heard) -> None:
        for attempt in (1, 2):
            instance = compute.launch(blueprint("handler"))
            instance.run([run_of(attempt)])
            (end,) = await heard.end_of(attempt)
            assert result_of(end) is True
        await heard.until(lambda: heard.text(0, "log"))
        assert f"leaves {says} behind" in heard.text(0, "log")
        assert heard.text(0, "log").count("leaves") == 1

    with_code(tmp_path, code, body)


def test_bytes_that_are_no_frames_end_the_instance(tmp_path: Path) -> None:
    code = """
        import os
        def handler(event, context):
            for name in os.listdir("/proc/self/fd"):
                try:
                    if os.readlink(f"/proc/self/fd/{name}").startswith("socket:"):
                        os.write(int(name), b"this is no frame at all")
                except OSError:
                    pass
            import time
            time.sleep(3600)
    """

    async def body(compute: Compute, heard: Heard) -> None:
        instance = compute.launch(blueprint("handler"))
        instance.run([run_of(1)])
        assert "broke the protocol" in (await heard.exit_of(instance)).detail

    with_code(tmp_path, code, body)


@pytest.mark.parametrize("parts", [[], [(0, b"1")], [(0, b"1")] * 3])
def test_an_end_that_does_not_tell_of_each_task_of_a_batch_ends_the_instance(
    tmp_path: Path, parts: list[tuple[int, bytes]]
) -> None:
    code = f"""
        import os
        from penstock.runtime import wire
        def handler(event, context):
            body = wire.encode_parts({parts})
            frame = wire.encode_end(1, wire.PARTS, 0.0, 0.0, None, "", len(body), body)
            for name in os.listdir("/proc/self/fd"):
                try:
                    if os.readlink(f"/proc/self/fd/{{name}}").startswith("socket:"):
                        os.write(int(name), frame)
                except OSError:
                    pass
            import time
            time.sleep(3600)
    """

    async def body(compute: Compute, heard: Heard) -> None:
        instance = compute.launch(blueprint("handler"))
        instance.run([batch_of(1, "one", "two")])
        assert "with 2 tasks" in (await heard.exit_of(instance)).detail
        assert not heard.ends

    with_code(tmp_path, code, body)


def test_a_zygote_that_is_killed_takes_its_instances_with_it_and_is_replaced(run: Exercise) -> None:
    async def body(compute: Compute, heard: Heard) -> None:
        instance = compute.launch(blueprint("litter"))
        instance.run([run_of(1)])
        await heard.until(lambda: heard.text(1).endswith("]\n"))
        pid, zygote, *started = json.loads(heard.text(1))
        os.kill(zygote, signal.SIGKILL)
        gone = await heard.exit_of(instance)
        assert (gone.signal, gone.killed) == (9, False)
        assert "SIGKILL" in gone.detail
        _, result = await one(compute, heard, "echo", "again")
        assert result == "again"
        await wait_until_dead([pid, *started])

    run(body)


def test_a_storm_of_launches(run: Exercise) -> None:
    async def body(compute: Compute, heard: Heard) -> None:
        made_from = blueprint("echo")
        instances = [compute.launch(made_from) for _ in range(300)]
        for number, instance in enumerate(instances, 1):
            instance.run([run_of(number, number)])
        ends = await heard.end_of(*range(1, 301))
        assert [result_of(end) for end in ends] == list(range(1, 301))

    heard = run(body)
    assert len(heard.exits) == 300


SERVER = """
import asyncio, sys
from pathlib import Path
from penstock.compute.local import LocalCompute
from tests.conformance.compute_world import Heard, blueprint, run_of

async def main():
    heard = Heard()
    compute = LocalCompute(Path(sys.argv[1]), lambda _: Path(sys.argv[2]))
    await compute.open(heard)
    for attempt in (1, 2):
        compute.launch(blueprint("litter")).run([run_of(attempt)])
    for attempt in (1, 2):
        await heard.until(lambda: heard.text(attempt).endswith("]\\n"))
        print(heard.text(attempt), end="", flush=True)
    await asyncio.sleep(3600)

asyncio.run(main())
"""


def test_nothing_of_a_killed_server_is_left_when_the_next_one_is_open(tmp_path: Path) -> None:
    bundle, home = tmp_path / "bundle", tmp_path / "compute"
    bundle.mkdir()
    (bundle / "handlers.py").write_text(CODE)
    argv = [sys.executable, "-c", SERVER, str(home), str(bundle)]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[2]) as server:
        assert server.stdout is not None
        pids = [pid for _ in range(2) for pid in json.loads(server.stdout.readline())]
        assert all(map(is_alive, pids))
        server.kill()

    async def main() -> None:
        compute = LocalCompute(home, lambda _: bundle)
        await compute.open(Heard())
        assert not [pid for pid in pids if is_alive(pid)]
        assert not list((home / "zygotes").iterdir())
        await compute.close()

    asyncio.run(main())


@pytest.mark.parametrize("level", ["off", "standard", "strict"])
def test_peaks_are_known_after_the_memory_was_given_back(run: Exercise, level: Level) -> None:
    async def body(compute: Compute, heard: Heard) -> None:
        if level == "strict" and compute.isolation("strict").missing:
            pytest.skip("this machine has no strict sandbox")
        instances = [compute.launch(blueprint("grow", sandbox=level)) for _ in range(2)]
        instances[0].run([run_of(1, 200_000_000)])
        instances[1].run([run_of(2, 5_000_000)])
        await heard.end_of(1, 2)
        large, small = await compute.peaks(instances)
        now, _ = await compute.weigh(instances)
        assert large > 200_000_000 > 100_000_000 > max(small, now)
        instances[0].kill()
        await heard.exit_of(instances[0])
        gone, other = await compute.peaks(instances)
        assert (gone, other > 0) == (0, True)

    run(body)


def test_another_directorys_processes_are_left_alone(run: Exercise, tmp_path: Path) -> None:
    async def body(compute: Compute, heard: Heard) -> None:
        instance = compute.launch(blueprint("echo"))
        await heard.until(lambda: instance.id in heard.alive)
        other = LocalCompute(tmp_path / "other", lambda _: tmp_path)
        await other.open(Heard())
        await other.close()
        instance.run([run_of(1, "alive")])
        (end,) = await heard.end_of(1)
        assert end.ending is Ending.OK

    run(body)


def test_the_kernel_keeps_instances_within_their_memory(run: Exercise, monkeypatch: pytest.MonkeyPatch) -> None:
    async def body(compute: Compute, heard: Heard) -> None:
        assert compute.enforcement.startswith("cgroup")
        made_from = blueprint("grow", memory=100_000_000)
        modest, greedy = compute.launch(made_from), compute.launch(made_from)
        modest.run([run_of(1, 30_000_000)])
        greedy.run([run_of(2, 3_000_000_000)])
        gone = await heard.exit_of(greedy)
        assert (gone.signal, gone.killed) == (signal.SIGKILL, False)
        assert gone.overran is not None
        assert gone.overran >= 100_000_000
        assert [result_of(end) for end in await heard.end_of(1)] == [6]

    with lent() as folder:
        monkeypatch.setenv(FOLDER, str(folder))
        run(body)
