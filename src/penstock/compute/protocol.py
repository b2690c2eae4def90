"""Where instances live. Every adapter passes the same conformance suite, the simulated one included.

The laws. Nothing here needs a file descriptor or a local path, so that another machine can be on the other end. Verbs
return at once unless they are coroutines; what happens is told to the `Listener`, on the event loop, batched. For every
launched instance `gone` is called exactly once, after everything else about it. Moments are monotonic seconds
(`time.monotonic`). A payload and a result travel as the bytes they are.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Literal, NamedTuple, Protocol

from penstock.runtime.frames import Word
from penstock.runtime.wire import Answer, Reply, Request
from penstock.runtime.wire import Entry as Entry  # noqa: PLC0414 - part of this contract

Level = Literal["strict", "standard", "off"]


class Code(NamedTuple):
    """Name code by its bundle, and the Python that its function asks for, such as "3.12" (None: the server's)."""

    bundle: str
    python: str | None = None


@dataclass(frozen=True, slots=True)
class Blueprint:
    """Say what an instance is made from; instances of equal blueprints are interchangeable.

    `handler` is "module:callable" inside the bundle, `slots` how many tasks it serves at once (at least 1; async handlers
    share one loop, sync ones a pool of that many threads), `timeout` the limit of one task in seconds (for the handler's
    context only: the engine keeps the clock), `memory` the limit of an instance in bytes (None: none). `tmpdir` is how many
    bytes it may keep in its own folder, `max_processes` how many it may have below it. `sandbox` is the level that is wanted,
    `writable` are the folders outside of its own that it may change, and without `network` it opens no network sockets.
    `web` ("asgi", "wsgi") is what kind of web app the handler is, "" that it is found out from what it takes.
    """

    project: str
    function: str
    version: int
    bundle: str
    handler: str
    slots: int = 1
    reuse: bool = True
    timeout: float = 30.0
    memory: int | None = None
    tmpdir: int = 2 * 10**9
    max_processes: int = 1000
    sandbox: Level = "standard"
    writable: tuple[str, ...] = ()
    network: bool = True
    web: str = ""
    env: Mapping[str, str] = field(default_factory=dict, hash=False)
    python: str | None = None

    @property
    def code(self) -> Code:
        """Return the bundle, and the Python for it."""
        return Code(self.bundle, self.python)


@dataclass(frozen=True, slots=True)
class Isolation:
    """Say which walls this machine gives a level of the sandbox (`by`), and which it cannot, each with the reason."""

    level: Level
    by: tuple[str, ...] = ()
    missing: Mapping[str, str] = field(default_factory=dict, hash=False)

    @property
    def reached(self) -> str:
        """Return the level in a word: `partly` if some walls are missing, `off` if all are."""
        return self.level if not self.missing else "partly" if self.by else "off"


@dataclass(frozen=True, slots=True)
class PipelineContext:
    """Tell an instance about a pipeline, once and not with every task. `params` is a JSON object's bytes.

    `key` is a number that is never used again for other contents.
    """

    key: int
    name: str
    params: bytes = b"{}"


@dataclass(frozen=True, slots=True)
class Run:
    """Ask for one execution. `attempt` identifies it in this server's life; `number` is 1 for a task's first attempt.

    `timeout` is in seconds. `dated` asks for the moment of the handler's start to be told as soon as it has started, not
    only with the end. One with a `batch` calls the handler with a list: `payload` is then the payloads of its tasks in a
    row, and `task` and `number` are those of the first. One with a `head` is a web request, `payload` what is here of its
    body, and `more` says that pieces of it follow.
    """

    attempt: int
    task: int
    number: int
    pipeline: PipelineContext
    payload: bytes
    timeout: float
    dated: bool = False
    batch: tuple[Entry, ...] = ()
    head: bytes | None = None
    more: bool = False


class Ending(Enum):
    """Say how a handler ended, as its instance saw it."""

    OK = 0
    ERROR = 1
    THROTTLED = 2
    CANCELLED = 3


class Part(NamedTuple):
    """Report what became of one task of a batch: ok, error or throttled, and its result or error."""

    ending: Ending
    body: bytes


@dataclass(slots=True)
class End:
    """Report the end of one execution. `body` is the JSON result, or the JSON error `{"type", "message", "traceback"}`.

    `retry_after` (seconds) and `limit` are set by `THROTTLED` if the handler named them. A batch whose handler returned has
    the ending ok and a part for each task, in their order; otherwise what is said holds for all of them.
    """

    attempt: int
    ending: Ending
    body: bytes
    started: float
    finished: float
    retry_after: float | None = None
    limit: str | None = None
    parts: tuple[Part, ...] = ()


@dataclass(frozen=True, slots=True)
class Exit:
    """Report why an instance is gone: its exit code, or the signal that ended it; `detail` is for people.

    `killed` is True if Penstock ended it on purpose. `overran` is how many bytes it was found to use if it was ended because
    that was more than its blueprint's `memory`, else None; that is not on purpose. `peak` is the most that it used, in bytes,
    as far as anybody looked (shared memory may count too much); 0 if nobody did.
    """

    code: int | None
    signal: int | None
    killed: bool
    detail: str = ""
    overran: int | None = None
    peak: int = 0


class ImportFailed(Exception):
    """Report that the handler's module cannot be imported, or has no such callable."""

    def __init__(self, message: str, traceback: str = "") -> None:
        super().__init__(message)
        self.message, self.traceback = message, traceback


class NotIsolated(ImportFailed):
    """Report that this machine does not give what a function's sandbox must have."""


class InstallFailed(ImportFailed):
    """Report that the packages which a bundle asks for cannot be installed; `traceback` is what the installer said."""


@dataclass(frozen=True, slots=True)
class Environment:
    """Tell of the packages that a bundle's code runs with: how many there are, and how long (seconds) their installation took.

    `digest` is the same for all bundles that share it; `fresh` is True if it was made for the one who asks.
    """

    digest: str
    packages: int
    seconds: float
    fresh: bool = False


class Instance(Protocol):
    """Be one running process, or one that is about to run. All verbs may be called at any time, also when it is gone."""

    @property
    def id(self) -> int:
        """Return a number that no other instance of this server's life has."""

    @property
    def blueprint(self) -> Blueprint:
        """Return what it was made from."""

    def run(self, runs: Sequence[Run]) -> None:
        """Send executions, in one write. Allowed before `ready`: they start when the instance does."""

    def cancel(self, attempts: Sequence[int]) -> None:
        """Cancel executions: an async handler gets CancelledError; nothing happens to a sync one that has started."""

    def answer(self, answers: Sequence[Answer | Reply]) -> None:
        """Answer what executions have asked of limits, and reply to orders; who has ended meanwhile does not hear it."""

    def tell(self, words: Sequence[Word]) -> None:
        """Tell web requests what came for them; those that have ended meanwhile do not hear it."""

    def stop(self) -> None:
        """Let it end by itself when it has finished what it has. It gets no more `run` after this."""

    def kill(self) -> None:
        """End it now, with SIGKILL to it and to what it started."""


class Listener(Protocol):
    """Hear what instances do."""

    def ready(self, instance: Instance, at: float) -> None:
        """Hear that an instance has begun to read; executions sent before start now."""

    def started(self, instance: Instance, starts: Sequence[tuple[int, float]]) -> None:
        """Hear (attempt, moment) of handlers that started, for executions that are `dated`.

        No handler starts after its moment. An attempt may be told of again with a later one, which counts then.
        """

    def asked(self, instance: Instance, requests: Sequence[Request]) -> None:
        """Hear what running executions ask of limits and tell of them, and what they want made, in the order of asking.

        Every `Take` wants one answer. No handler goes on after the moment of its `Took`, which may be told again, later.
        Every `Order`, which has its whole body here, wants one reply; a `Wait` for one may come before it.
        """

    def heard(self, instance: Instance, words: Sequence[Word]) -> None:
        """Hear what web requests are answered, in order; before their ends."""

    def finished(self, instance: Instance, ends: Sequence[End]) -> None:
        """Hear of executions that ended."""

    def output(self, instance: Instance, attempt: int, stream: str, text: str) -> None:
        """Hear output of a task (stream is stdout, stderr or log); attempt 0 when it belongs to none."""

    def gone(self, instance: Instance, exit: Exit) -> None:  # noqa: A002
        """Hear that an instance's process has ended and was reaped. What it ran and did not report has ended with it."""

    def answers(self, instance: Instance, at: float) -> None:
        """Hear that an instance answered a `ping` at that moment."""


class Compute(Protocol):
    """Make instances."""

    @property
    def enforcement(self) -> str:
        """Return by what means an instance is kept within its `memory`, in a word or two for people."""

    def isolation(self, level: Level) -> Isolation:
        """Return what this machine gives a level of the sandbox."""

    async def open(self, listener: Listener) -> None:
        """Begin: first end whatever an earlier server left running here, and wait until it is gone."""

    async def close(self) -> None:
        """End every instance and wait until all are gone."""

    async def furnish(self, code: Code) -> Environment | None:
        """Install the Python and the packages that code asks for, unless they are there; None if it asks for none.

        The time that it takes is bounded. Raises `InstallFailed`.
        """

    async def environments(self, codes: Collection[Code]) -> Mapping[Code, Environment]:
        """Return the environments that code runs in, as far as it asks for one and that is there."""

    async def tidy(self, codes: Collection[Code]) -> None:
        """Delete what was installed for code that is not among this, and has not been used for long."""

    async def prepare(self, blueprint: Blueprint, timeout: float) -> None:
        """Import the code so that `launch` is a fork. Raises `ImportFailed`, also when it takes longer than `timeout` s.

        What the bundle asks for is installed before, if it is not there; that does not count in the timeout.
        """

    def launch(self, blueprint: Blueprint) -> Instance:
        """Start one instance of a prepared blueprint (it is prepared first if it is not)."""

    def retire(self, blueprint: Blueprint) -> None:
        """Say that no further instance of this blueprint is wanted soon."""

    def memory_left(self) -> tuple[int, int] | None:
        """Return (bytes of memory that are available to further instances, bytes in all); None if nobody knows.

        It is cheap enough to be asked whenever instances are to be started.
        """

    async def weigh(self, instances: Collection[Instance]) -> Sequence[int]:
        """Return how many bytes each of some instances uses, shared memory in parts (PSS); 0 if it is gone."""

    async def peaks(self, instances: Collection[Instance]) -> Sequence[int]:
        """Return how many bytes each of some instances has used at most until now, as far as is known; 0 if it is gone."""

    def ping(self, instance: Instance) -> None:
        """Ask for a sign of life; `Listener.answers` tells of it. A handler that holds the GIL does not answer."""

    async def holder(self, instance: Instance) -> int | None:
        """Return the attempt that keeps a shared instance from answering, None if that cannot be told. It takes 0.1 s."""
