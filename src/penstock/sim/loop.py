"""An asyncio event loop on virtual time.

The laws. Nothing sleeps: when no callback is ready, time jumps to the next timer, exactly to the moment that was asked
for. Between two jumps time stands still, unless `block` lets a callback seem slow. Threads, sockets, processes and
signals are refused, because what they do has no place in virtual time. When nothing is ready, no timer is set and the
main task has not ended, the run ends with `Deadlock`; when callbacks go round without time ever moving, with `Livelock`.
"""

import asyncio
import contextvars
import math
import threading
import weakref
from collections.abc import Callable, Coroutine
from typing import Any, NoReturn, TypeVar

T = TypeVar("T")

MAX_TURNS = 200_000
"""How often the loop may go round at one moment of virtual time. Real work settles within a few hundred turns."""

RESOLUTION = 1e-9
"""How early a timer may run, in seconds, as on a real loop: asyncio runs timers that are this close together at once."""

_LIFE: contextvars.ContextVar["Life | None"] = contextvars.ContextVar("penstock_sim_life", default=None)


class Deadlock(RuntimeError):
    """Report that everybody waits for somebody else."""


class Livelock(RuntimeError):
    """Report that callbacks call each other without time moving on."""


class RealWorld(RuntimeError):
    """Report a call that needs threads, sockets, processes or signals."""


class Unhandled(RuntimeError):
    """Report errors that callbacks or tasks raised and nobody handled; they are the notes of this error."""


class Life:
    """Be one process in the simulated world: all that is started within it can be ended at once, as by SIGKILL."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.ended = False
        self.context = contextvars.copy_context()
        self.context.run(_LIFE.set, self)

    def __repr__(self) -> str:
        return f"Life({self.name})"


class _Jump:
    """Stand where a real loop has its selector: where that would sleep, move the clock."""

    def __init__(self, loop: "VirtualLoop") -> None:
        self._loop = loop

    def select(self, timeout: float | None) -> list[Any]:
        self._loop._pass_time(timeout)
        return []


class VirtualLoop(asyncio.BaseEventLoop):
    """Run callbacks in the order of virtual time. `time()` starts at `start` seconds."""

    _selector: _Jump
    _scheduled: list[asyncio.TimerHandle]
    _ready: Any
    _clock_resolution: float
    _thread_id: int | None

    def __init__(self, start: float = 1000.0, max_turns: int = MAX_TURNS) -> None:
        super().__init__()
        self._now = start
        self._turns = 0
        self._max_turns = max_turns
        self._selector = _Jump(self)
        self._clock_resolution = RESOLUTION
        self._lives: weakref.WeakKeyDictionary[asyncio.Task[Any], Life | None] = weakref.WeakKeyDictionary()
        self.failures: list[dict[str, Any]] = []
        self.set_exception_handler(_keep_failure)

    # time -------------------------------------------------------------------------------------------------------------
    def time(self) -> float:
        """Return the virtual moment, in seconds."""
        return self._now

    def block(self, seconds: float) -> None:
        """Let time pass within a callback, as one does that computes for so long or waits for a disk."""
        if not seconds >= 0:
            raise ValueError(f"time cannot pass by {seconds} s")
        self._now += seconds

    def _pass_time(self, timeout: float | None) -> None:
        if timeout is None:
            raise Deadlock(_describe_deadlock(self))
        if timeout > 0:
            self._turns = 0
            self._now = self._scheduled[0].when()
            # Late in virtual time a nanosecond is less than a float can tell; the timer must be due all the same.
            self._clock_resolution = max(RESOLUTION, 2 * math.ulp(self._now))
            return
        self._turns += 1
        if self._turns > self._max_turns:
            following = ", ".join(repr(handle) for handle in list(self._ready)[:5])
            raise Livelock(
                f"The loop went round {self._turns} times at {self._now} s; it would go on with {following}."
            )

    # lives ------------------------------------------------------------------------------------------------------------
    def spawn(self, life: Life, main: Coroutine[Any, Any, T], name: str | None = None) -> asyncio.Task[T]:
        """Start a task within a life; the tasks, timers and callbacks that come of it belong to that life too."""
        return self.create_task(main, name=name, context=life.context.copy())

    async def kill(self, life: Life) -> None:
        """End a life: its timers and callbacks never run, and its tasks are cancelled until they give up.

        What the tasks touch while they unwind must have been cut off before, as a killed process touches nothing.
        """
        for _ in range(100):
            mine = [task for task in asyncio.all_tasks(self) if self._lives.get(task) is life]
            if not mine:
                break
            for task in mine:
                task.cancel()
            await asyncio.wait(mine, timeout=0)
        else:
            raise RuntimeError(f"These tasks of {life} refuse to be cancelled: {mine}")
        life.ended = True
        for handle in [*self._scheduled, *self._ready]:
            if handle._context.get(_LIFE) is life:
                handle.cancel()

    def note_forgotten_tasks(self) -> None:
        """Add the errors of tasks that failed and that nobody asked, without waiting for the garbage collector."""
        for task in list(self._lives):
            if task.done() and not task.cancelled() and getattr(task, "_log_traceback", False):
                self.failures.append({"message": f"{task.get_name()} failed", "exception": task.exception()})

    # asyncio's own ----------------------------------------------------------------------------------------------------
    def create_task(self, coro: Any, **options: Any) -> asyncio.Task[Any]:
        """Start a task, and remember whose it is."""
        task = super().create_task(coro, **options)
        context = options.get("context")
        self._lives[task] = context.get(_LIFE) if context is not None else _LIFE.get()
        return task

    def _process_events(self, event_list: list[Any]) -> None:
        assert not event_list

    def _write_to_self(self) -> None:
        if threading.get_ident() != self._thread_id:
            raise RealWorld("Another thread called into the virtual loop; there are no threads in virtual time.")


def _refusal(name: str) -> Callable[..., NoReturn]:
    def refuse(self: VirtualLoop, *args: Any, **options: Any) -> NoReturn:  # noqa: ARG001 - it refuses them all
        raise RealWorld(
            f"loop.{name} was asked for; there are no threads, sockets, processes or signals in virtual time."
        )

    return refuse


for _name in (
    "add_reader", "add_signal_handler", "add_writer", "connect_accepted_socket", "connect_read_pipe",
    "connect_write_pipe", "create_connection", "create_datagram_endpoint", "create_server", "create_unix_connection",
    "create_unix_server", "getaddrinfo", "getnameinfo", "run_in_executor", "sendfile", "sock_accept", "sock_connect",
    "sock_recv", "sock_recv_into", "sock_recvfrom", "sock_sendall", "sock_sendfile", "sock_sendto", "start_tls",
    "subprocess_exec", "subprocess_shell",
):  # fmt: skip
    setattr(VirtualLoop, _name, _refusal(_name))


def run(main: Coroutine[Any, Any, T], *, start: float = 1000.0, max_turns: int = MAX_TURNS) -> T:
    """Run a coroutine on a virtual loop of its own, to its end, and return its result.

    Raises `Deadlock`, `Livelock`, or `Unhandled` when a callback or a forgotten task failed though the main one did not.
    """
    loop = VirtualLoop(start, max_turns)
    with asyncio.Runner(loop_factory=lambda: loop) as runner:
        result = runner.run(main)
    loop.note_forgotten_tasks()
    if loop.failures:
        error = Unhandled(f"{len(loop.failures)} errors were raised that nobody handled.")
        for failure in loop.failures:
            error.add_note(f"{failure.get('message')}: {failure.get('exception')!r}")
        raise error from loop.failures[0].get("exception")
    return result


def virtual_loop() -> VirtualLoop:
    """Return the running loop, which must be a virtual one."""
    loop = asyncio.get_running_loop()
    if not isinstance(loop, VirtualLoop):
        raise TypeError("This runs in a simulation only: start it with penstock.sim.loop.run.")
    return loop


def _keep_failure(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    assert isinstance(loop, VirtualLoop)
    loop.failures.append(context)


def _describe_deadlock(loop: VirtualLoop) -> str:
    lines = [f"Nothing is ready and no timer is set at {loop.time()} s, but these tasks wait:"]
    for task in sorted(asyncio.all_tasks(loop), key=lambda task: task.get_name()):
        lines.append(f"  {task.get_name()}")
        lines += [f"    {frame.f_code.co_qualname if hasattr(frame.f_code, 'co_qualname') else frame.f_code.co_name}"
                  f" ({frame.f_code.co_filename}:{frame.f_lineno})" for frame in task.get_stack()]  # fmt: skip
    return "\n".join(lines)
