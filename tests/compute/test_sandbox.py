"""What each level of the sandbox stops, and that the same is possible without one."""

import contextlib
import os
import socket
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest
from tests.conformance.compute_world import Heard, LocalWorld, blueprint, exercise, result_of, run_of

from penstock.compute.isolation import Walls
from penstock.compute.local import LocalCompute
from penstock.compute.protocol import Compute, ImportFailed, Level, NotIsolated
from penstock.runtime import enclosure, landlock, sandbox

CODE = """
import ctypes, errno, os, signal, socket, subprocess

libc = ctypes.CDLL(None, use_errno=True)


def call(result):
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return result


def mount(where):
    call(libc.mount(b"none", where.encode(), b"tmpfs", 0, None))
    call(libc.umount2(where.encode(), 0))


def abstract(name):
    with socket.socket(socket.AF_UNIX) as line:
        line.connect("\\0" + name)


def connect(port):
    with socket.create_connection(("127.0.0.1", port)):
        pass


def namespace(_):
    pid = os.fork()
    if not pid:
        os._exit(0 if libc.unshare(0x10000000) == 0 else 1)
    if os.waitpid(pid, 0)[1]:
        raise PermissionError("no new namespace")


def make(path):
    with open(path, "w"):
        pass


DEEDS = {
    "read a file": lambda path: len(open(path).read()),
    "list a folder": os.listdir,
    "make a file": make,
    "change a file": lambda path: open(path, "r+").close(),
    "look into a process": lambda pid: len(open(f"/proc/{pid}/environ", "rb").read()),
    "signal a process": lambda pid: os.kill(pid, 0),
    "trace a process": lambda pid: call(libc.ptrace(0x4206, pid, None, None)),
    "read the memory of a process": lambda pid: open(f"/proc/{pid}/mem", "rb").close(),
    "mount": mount,
    "make a namespace": namespace,
    "add a key": lambda _: call(libc.syscall(248, b"user", b"penstock", b"x", 1, -1)),
    "make a ring": lambda _: os.close(call(libc.syscall(425, 1, ctypes.create_string_buffer(120)))),
    "reach an abstract socket": abstract,
    "open a connection": connect,
    "ask the kernel for a route": lambda _: socket.socket(socket.AF_NETLINK, socket.SOCK_RAW).close(),
    "start a program": lambda _: subprocess.run(["true"], check=True),
}


def attempt(event, context):
    outcomes = []
    for deed, object in event:
        try:
            DEEDS[deed](object)
        except OSError as error:
            outcomes.append("refused: " + error.strerror if error.strerror else "refused")
        else:
            outcomes.append("done")
    return outcomes


def place(event, context):
    with open(os.path.join(context.tmpdir, "mine"), "w") as file:
        file.write("secret")
    return {"pid": os.getpid(), "tmpdir": context.tmpdir}
"""


class Inside(LocalWorld):
    """A compute whose code lies in the server's folder, as that of a server does."""

    def make(self, folder: Path, bundle: Path) -> Compute:
        """Return a compute whose private folder is the one above it."""
        return LocalCompute(folder, lambda _: bundle, private=folder.parent)


@pytest.fixture
def outside() -> Iterator[Path]:
    """A folder that is neither the server's nor for temporary files."""
    with tempfile.TemporaryDirectory(dir=Path.home()) as folder:
        yield Path(folder)


async def tried(compute: Compute, heard: Heard, deeds: list[tuple[str, Any]], **settings: Any) -> list[bool]:
    """Return of each deed whether it was done, by an instance of a function with those settings."""
    attempt = len(heard.ends) + 1
    instance = compute.launch(blueprint("attempt", **settings))
    instance.run([run_of(attempt, deeds)])
    await heard.until(lambda: attempt in heard.ends or instance.id in heard.exits)
    assert attempt in heard.ends, heard.exits[instance.id]
    outcomes = result_of(heard.ends[attempt])
    assert isinstance(outcomes, list), outcomes
    return [outcome == "done" for outcome in outcomes]


async def placed(compute: Compute, heard: Heard, **settings: Any) -> dict[str, Any]:
    """Return where another instance lives; it stays idle."""
    attempt = len(heard.ends) + 1
    compute.launch(blueprint("place", **settings)).run([run_of(attempt)])
    (end,) = await heard.end_of(attempt)
    found: dict[str, Any] = result_of(end)
    return found


def youngest_with(variable: str) -> int:
    """Return the process id, as this process sees it, of the one that was started last with an environment variable."""
    found = [
        one
        for one in psutil.Process().children(recursive=True)
        if variable in [f"{name}={value}" for name, value in environment(one).items()]
    ]
    return max(found, key=lambda one: (one.create_time(), one.pid)).pid


def environment(process: psutil.Process) -> dict[str, str]:
    """Return the environment variables of a process, as far as they may be seen."""
    with contextlib.suppress(psutil.Error):
        return process.environ()
    return {}


def needs(*parts: str) -> None:
    """Skip a test on a machine that cannot."""
    missing = sandbox.parts()
    lacking = [part for part in parts if part in missing]
    if lacking:
        pytest.skip(f"this machine lacks {', '.join(lacking)}")


@pytest.mark.parametrize("level", ["off", "standard", "strict"])
def test_the_server_is_out_of_reach(tmp_path: Path, level: Level) -> None:
    needs(*sandbox.STANDARD)
    (tmp_path / "token").write_text("secret")

    async def body(compute: Compute, heard: Heard) -> None:
        server = os.getpid()
        deeds = [
            ("read a file", str(tmp_path / "token")),
            ("change a file", str(tmp_path / "token")),
            ("read a file", str(tmp_path / "compute" / "owner")),
            ("look into a process", server),
            ("read the memory of a process", server),
            ("signal a process", server),
        ]
        assert await tried(compute, heard, deeds, sandbox=level) == [level == "off"] * len(deeds)

    exercise(Inside(), tmp_path, body, CODE)
    assert (tmp_path / "token").read_text() == "secret"


@pytest.mark.parametrize("level", ["off", "standard", "strict"])
def test_another_function_is_out_of_reach(tmp_path: Path, level: Level) -> None:
    needs(*sandbox.STANDARD)

    async def body(compute: Compute, heard: Heard) -> None:
        other = await placed(compute, heard, sandbox=level, env={"MINE": f"secret {tmp_path}"})
        other["pid"] = youngest_with(f"MINE=secret {tmp_path}")
        deeds = [
            ("list a folder", other["tmpdir"]),
            ("read a file", other["tmpdir"] + "/mine"),
            ("change a file", other["tmpdir"] + "/mine"),
            ("look into a process", other["pid"]),
            ("trace a process", other["pid"]),
            ("signal a process", other["pid"]),
        ]
        assert await tried(compute, heard, deeds, sandbox=level) == [level == "off"] * len(deeds)

    exercise(Inside(), tmp_path, body, CODE)


@pytest.mark.parametrize("level", ["off", "standard", "strict"])
def test_an_instance_of_the_same_function_is_not_disturbed(tmp_path: Path, level: Level) -> None:
    needs(*sandbox.STANDARD)

    async def body(compute: Compute, heard: Heard) -> None:
        neighbour = compute.launch(blueprint("attempt", sandbox=level))
        await heard.until(lambda: neighbour.id in heard.alive)
        pid = next(one.pid for one in compute._instances.values())  # type: ignore[attr-defined]
        deeds = [("signal a process", pid), ("trace a process", pid), ("look into a process", pid)]
        assert await tried(compute, heard, deeds, sandbox=level) == [level == "off"] * len(deeds)

    exercise(Inside(), tmp_path, body, CODE)


@pytest.mark.parametrize("level", ["off", "standard", "strict"])
def test_code_and_machine_are_not_changed(tmp_path: Path, outside: Path, level: Level) -> None:
    needs(*sandbox.STANDARD)
    (outside / "there").touch()

    async def body(compute: Compute, heard: Heard) -> None:
        deeds = [
            ("change a file", str(tmp_path / "bundle" / "handlers.py")),
            ("make a file", str(tmp_path / "bundle" / "new.py")),
            ("change a file", str(outside / "there")),
            ("make a file", str(outside / "new")),
        ]
        assert await tried(compute, heard, deeds, sandbox=level) == [level == "off"] * len(deeds)

    exercise(Inside(), tmp_path, body, CODE)


def test_folders_that_are_named_may_be_changed(tmp_path: Path, outside: Path) -> None:
    async def body(compute: Compute, heard: Heard) -> None:
        deeds = [("make a file", str(outside / "new")), ("read a file", str(outside / "new"))]
        assert await tried(compute, heard, deeds, writable=(str(outside),)) == [True, True]

    exercise(Inside(), tmp_path, body, CODE)


@pytest.mark.parametrize("level", ["off", "standard", "strict"])
def test_the_kernels_corners_are_closed(tmp_path: Path, level: Level) -> None:
    needs(*sandbox.STANDARD)
    folder = tmp_path / "mounted"
    folder.mkdir()
    ring = Path("/proc/sys/kernel/io_uring_disabled")
    deeds: list[tuple[str, Any]] = [("make a namespace", None)]
    deeds += [("add a key", None)] if os.uname().machine == "x86_64" else []
    deeds += [("make a ring", None)] if ring.exists() and ring.read_text().strip() == "0" else []
    deeds += [("mount", tempfile.gettempdir())] if os.geteuid() == 0 else []

    async def body(compute: Compute, heard: Heard) -> None:
        assert await tried(compute, heard, deeds, sandbox=level) == [level == "off"] * len(deeds)

    exercise(Inside(), tmp_path, body, CODE)


@pytest.mark.parametrize("level", ["off", "standard", "strict"])
def test_abstract_sockets_of_others_are_out_of_reach(tmp_path: Path, level: Level) -> None:
    needs(*sandbox.STANDARD)
    name = f"penstock-test-{os.getpid()}"

    async def body(compute: Compute, heard: Heard) -> None:
        with socket.socket(socket.AF_UNIX) as listening:
            listening.bind("\0" + name)
            listening.listen()
            assert await tried(compute, heard, [("reach an abstract socket", name)], sandbox=level) == [level == "off"]

    exercise(Inside(), tmp_path, body, CODE)


@pytest.mark.parametrize("level", ["standard", "strict"])
@pytest.mark.parametrize("network", [True, False])
def test_the_network_is_off_on_request(tmp_path: Path, network: bool, level: Level) -> None:
    async def body(compute: Compute, heard: Heard) -> None:
        with socket.create_server(("127.0.0.1", 0)) as listening:
            deeds = [("open a connection", listening.getsockname()[1]), ("ask the kernel for a route", None)]
            assert await tried(compute, heard, deeds, sandbox=level, network=network) == [network, network]

    exercise(Inside(), tmp_path, body, CODE)


@pytest.mark.parametrize("level", ["standard", "strict"])
def test_what_a_function_needs_is_there(tmp_path: Path, level: Level) -> None:
    async def body(compute: Compute, heard: Heard) -> None:
        with tempfile.NamedTemporaryFile() as shared:
            deeds = [
                ("start a program", None),
                ("read a file", "/etc/passwd"),
                ("list a folder", "/"),
                ("change a file", "/dev/null"),
                ("change a file", shared.name if level == "standard" else "/dev/zero"),
                ("read a file", str(tmp_path / "bundle" / "handlers.py")),
            ]
            assert await tried(compute, heard, deeds, sandbox=level) == [True] * len(deeds)

    exercise(Inside(), tmp_path, body, CODE)


@pytest.mark.parametrize("lacking", [sandbox.MOUNTS, sandbox.LANDLOCK])
def test_one_wall_less_still_hides_the_servers_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lacking: str
) -> None:
    needs(*sandbox.STANDARD)
    without(monkeypatch, lacking)
    (tmp_path / "token").write_text("secret")

    async def body(compute: Compute, heard: Heard) -> None:
        deeds = [
            ("read a file", str(tmp_path / "token")),
            ("change a file", str(tmp_path / "bundle" / "handlers.py")),
            ("read a file", str(tmp_path / "bundle" / "handlers.py")),
        ]
        assert await tried(compute, heard, deeds) == [False, False, True]
        found = compute.isolation("standard")
        assert (found.reached, dict(found.missing)) == ("partly", {lacking: "taken away"})

    exercise(Inside(), tmp_path, body, CODE)


def test_no_network_is_refused_where_it_cannot_be_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    without(monkeypatch, sandbox.SECCOMP)

    async def body(compute: Compute, heard: Heard) -> None:
        await compute.prepare(blueprint("attempt"), 30.0)
        with pytest.raises(NotIsolated, match=r"asks for network: false.*Missing: seccomp \(taken away\)"):
            await compute.prepare(replace(blueprint("attempt"), network=False), 30.0)
        gone = await heard.exit_of(compute.launch(replace(blueprint("attempt"), network=False)))
        assert "seccomp (taken away)" in gone.detail

    exercise(Inside(), tmp_path, body, CODE)


def test_a_wall_that_does_not_stand_ends_the_zygote(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was found at the server's start may be gone; then nothing runs with less."""
    monkeypatch.setattr(
        Walls, "around", lambda *_: sandbox.Sandbox("standard", (sandbox.MOUNTS,), "/none", "/")._asdict()
    )

    async def body(compute: Compute, heard: Heard) -> None:
        with pytest.raises(ImportFailed):
            await compute.prepare(blueprint("attempt"), 30.0)

    exercise(Inside(), tmp_path, body, CODE)


STRICT_CODE = """
import os, socket, subprocess, sys, threading, time

ready = threading.Event()
threading.Thread(target=ready.wait, daemon=True).start()  # which a fork does not survive


def look(event, context):
    return {
        "user": os.getuid(), "tmp": os.listdir("/tmp"),
        "processes": sorted(int(name) for name in os.listdir("/proc") if name.isdecimal()), "me": os.getpid(),
        "root": sorted(os.listdir("/")),
    }


def orphan(event, context):
    code = (
        "import os, time\\nos.fork() and os._exit(0)\\nos.setsid()\\nos.fork() and os._exit(0)\\n"
        "open(os.environ['DONE'], 'w')\\ntime.sleep(3600)"
    )
    done = os.path.join(context.tmpdir, "done")
    subprocess.run([sys.executable, "-c", code], env={"MARK": event, "DONE": done}, check=True)
    while not os.path.exists(done):
        time.sleep(0.01)
"""


def test_strict_shows_little_of_the_machine(tmp_path: Path) -> None:
    needs(*sandbox.STRICT)

    async def body(compute: Compute, heard: Heard) -> None:
        instance = compute.launch(blueprint("look", sandbox="strict", network=False))
        instance.run([run_of(1, "")])
        (end,) = await heard.end_of(1)
        seen = result_of(end)
        assert set(seen["processes"]) == {1, seen["me"]}  # its zygote and itself
        assert len(seen["tmp"]) < len(os.listdir(tempfile.gettempdir()))
        assert set(seen["root"]) <= {
            "usr", "bin", "sbin", "lib", "lib32", "lib64", "libx32", "etc", "run", "dev", "proc", "tmp", "var",
            *(path.parts[1] for path in (tmp_path, Path.cwd(), Path(sys.prefix), Path(sys.base_prefix))),
        }  # fmt: skip
        await heard.until(lambda: "leaves 1 thread behind" in heard.text(0, "log"))
        if os.geteuid() == 0:
            assert seen["user"] >= enclosure.FIRST_USER

    exercise(Inside(), tmp_path, body, STRICT_CODE)


def test_an_orphan_without_a_trace_ends_with_a_strict_zygote(tmp_path: Path) -> None:
    needs(*sandbox.STRICT)

    async def body(compute: Compute, heard: Heard) -> None:
        instance = compute.launch(blueprint("orphan", sandbox="strict"))
        instance.run([run_of(1, str(tmp_path))])
        await heard.end_of(1)
        (orphan,) = (one for one in psutil.process_iter() if environment(one).get("MARK") == str(tmp_path))
        for process in psutil.Process().children():
            process.kill()  # as the end of the server would
        await heard.exit_of(instance)
        psutil.wait_procs([orphan], timeout=30)
        assert not orphan.is_running()

    exercise(Inside(), tmp_path, body, STRICT_CODE)


def test_strict_is_refused_where_it_cannot_be_had(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    without(monkeypatch, sandbox.PROCESSES)

    async def body(compute: Compute, heard: Heard) -> None:
        with pytest.raises(NotIsolated, match=r"sandbox: strict.*Missing:.*process namespace \(taken away\)"):
            await compute.prepare(blueprint("attempt", sandbox="strict"), 30.0)
        await compute.prepare(blueprint("attempt"), 30.0)

    exercise(Inside(), tmp_path, body, CODE)


def test_landlock_opens_nothing_that_is_not_named(tmp_path: Path) -> None:
    needs(sandbox.LANDLOCK)
    (tmp_path / "open").mkdir()
    (tmp_path / "closed").mkdir()
    pid = os.fork()
    if not pid:
        landlock.restrict([(str(tmp_path / "open"), landlock.CHANGE), ("/not/there", landlock.READ)])
        (tmp_path / "open" / "new").touch()
        try:
            (tmp_path / "closed" / "new").touch()
        except PermissionError:
            os._exit(0)
        finally:
            os._exit(1)
    assert os.waitpid(pid, 0)[1] == 0


def without(monkeypatch: pytest.MonkeyPatch, part: str) -> None:
    """Take a wall away from what the machine is found to have."""
    probe = Walls.probe

    def less(self: Walls) -> None:
        probe(self)
        self._missing[part] = "taken away"

    monkeypatch.setattr(Walls, "probe", less)
