"""What the loops share: functions, pipelines, fleets of instances, and what runs in them."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from itertools import count
from math import inf
from typing import TYPE_CHECKING, Final

from penstock.domain.admission import Admission
from penstock.domain.censor import Hidden, censor_of
from penstock.domain.routing import Measured

if TYPE_CHECKING:
    import asyncio
    import random
    from collections.abc import Callable, Collection, Mapping

    from penstock.compute.protocol import Blueprint, Compute, Instance, PipelineContext
    from penstock.domain.censor import Censor
    from penstock.domain.limits import Gate
    from penstock.domain.pipeline import Start
    from penstock.domain.pools import Pool
    from penstock.domain.scaling import Cap
    from penstock.domain.specs import FunctionSpec, PipelineSpec
    from penstock.domain.task import Attempt, Task
    from penstock.engine.orders import Nest
    from penstock.engine.visits import Visit
    from penstock.store.protocol import Store, Version

STARTING: Final = "starting"
READY: Final = "ready"
LEAVING: Final = "leaving"
"""In its last phase: it still takes tasks, and is in no new instance's way."""

DRAINING: Final = "draining"
TAINTED: Final = "tainted"
PRESENT: Final = frozenset({STARTING, READY})
"""States of instances that count against `max_instances`: one that is on its way out never keeps a new one from starting."""
TAKING: Final = frozenset({READY, LEAVING})
"""States of instances that take tasks."""

DIRECT: Final = "@"
"""Prefix of the built-in pipelines through which calls of a function itself go, and what stands before an alias in them."""

MAPPED: Final = "@map "
"""What stands before such a name for maps: calls never wait behind them."""

MOST_CALL_PAYLOAD: Final = 6 << 20
"""Bytes that such a pipeline takes: what is called, mapped or sent to a function itself has no settings to say more."""


def direct(function: str, alias: str | None = None) -> str:
    """Return the name of the built-in pipeline for calls of a function itself, or of what an alias of it points at."""
    return DIRECT + function if alias is None else f"{DIRECT}{function}{DIRECT}{alias}"


def mapped(function: str, alias: str | None = None) -> str:
    """Return the name of the built-in pipeline for maps of a function itself, or of what an alias of it points at."""
    return MAPPED + direct(function, alias)


def built_in_of(pipeline: str) -> str | None:
    """Return the function whose built-in pipeline this is; None if a user made it."""
    if not pipeline.startswith(DIRECT):
        return None
    return pipeline.removeprefix(MAPPED).removeprefix(DIRECT).partition(DIRECT)[0]


@dataclass(slots=True)
class Source:
    """Tell of a folder that a function is deployed from: what is wrong with it, and since when that is known (or right)."""

    error: str | None = None
    at: float | None = None


@dataclass(slots=True)
class Usage:
    """Add up, since the server started, the seconds that instances lived and those that handlers ran in them."""

    instances: float = 0.0
    requests: float = 0.0


@dataclass(slots=True)
class Traffic:
    """Count a function's web requests since the server started; `seconds` is how long those took that have ended."""

    open: int = 0
    answered: int = 0
    failed: int = 0
    seconds: float = 0.0

    def ended(self, seconds: float, *, failed: bool) -> None:
        """Count the end of one."""
        self.open -= 1
        self.answered += not failed
        self.failed += failed
        self.seconds += seconds


@dataclass(slots=True)
class Function:
    """Hold a function as it is configured now; `live` is None until code was deployed."""

    name: str
    spec: FunctionSpec
    gates: tuple[str, ...] = ()
    live: Version | None = None
    versions: dict[int, Version] = field(default_factory=dict)
    source: Source = field(default_factory=Source)
    usage: Usage = field(default_factory=Usage)
    traffic: Traffic = field(default_factory=Traffic)

    def version(self, name: int | str | None) -> Version | None:
        """Return the version of a number, that an alias points at, or (None) the live one; None if there is none."""
        if name is None:
            return self.live
        number = self.spec.aliases.get(name) if isinstance(name, str) else name
        return None if number is None else self.versions.get(number)


@dataclass(slots=True)
class Counts:
    """Count a pipeline's tasks; `done` since the server started."""

    delayed: int = 0
    queued: int = 0
    running: int = 0
    dead: int = 0
    done: int = 0

    @property
    def waiting(self) -> int:
        """Return how many tasks fill the queue."""
        return self.delayed + self.queued


@dataclass(slots=True)
class Pipe:
    """Hold a pipeline as it is configured now, with the context that its tasks' handlers see."""

    spec: PipelineSpec
    context: PipelineContext
    fleet: Fleet
    timeout: float
    censor: Censor | None = None
    counts: Counts = field(default_factory=Counts)
    paging: bool = False
    debouncing: list[float] = field(default_factory=list)  # when sends came that are being debounced now
    closed: bool = False  # it is being removed

    @property
    def busy(self) -> bool:
        """Say whether tasks wait here, or run."""
        return bool(self.counts.waiting or self.counts.running)

    @property
    def leaving(self) -> bool:
        """Say whether the pipeline goes when its work is done."""
        return self.spec.remove_when_empty


class Running:
    """Hold one attempt from its admission until its work has really ended.

    `tasks` are those whose outcome is still to come: none when it was given at the limit or all were cancelled, while the
    work goes on. `carried` are those that were sent. `nest` is what it has ordered, None if nothing.
    """

    __slots__ = (
        "carried",
        "deadline",
        "member",
        "nest",
        "pipe",
        "sent",
        "start",
        "started",
        "tasks",
        "timeout",
        "version",
    )

    def __init__(self, start: Start, pipe: Pipe, member: Member, sent: float) -> None:
        self.start = start
        self.tasks = self.carried = start.tasks
        self.pipe = pipe
        self.member = member
        self.sent = sent
        self.timeout = pipe.timeout  # the pipeline's may change while it runs
        self.deadline = sent + self.timeout
        self.version = member.blueprint.version
        self.started: float | None = None
        self.nest: Nest | None = None

    def leave(self, ids: Collection[int] | None) -> tuple[Task, ...]:
        """Take out tasks (None: all) that get their outcome while the others, or the work, go on; return them."""
        if ids is None:
            tasks, self.tasks = self.tasks, ()
            return tasks
        tasks = tuple(task for task in self.tasks if task.id in ids)
        self.tasks = tuple(task for task in self.tasks if task.id not in ids)
        return tasks


class Member:
    """Hold one instance of a fleet. `free` are the slots that admission may fill.

    One that is `apart` is for a single suspected task: it has none of those. It was launched when it was `born`, takes tasks
    from when it is `ready` until it `closes`, and `ends` by then; its `turn` is the next moment of its life at which
    something happens to it. It last `worked` when a task ended in it. `resting` are those of its tasks that wait for others of
    their own making. It `yields` if it drains to make room for another one: then it counts while a task works in it.
    """

    __slots__ = (
        "apart", "blueprint", "born", "busy", "censor", "closes", "counts", "ends", "fleet", "free", "gives", "idle_since",
        "instance", "pool", "reads", "ready", "resting", "served", "state", "turn", "worked", "yields",
    )  # fmt: skip

    def __init__(self, fleet: Fleet, instance: Instance, born: float, *, apart: bool = False) -> None:
        self.fleet = fleet
        self.instance = instance
        self.blueprint = instance.blueprint
        self.born = born
        self.state = ""
        self.reads = False  # it has said that it is ready
        self.free = 0
        self.busy: dict[int, Running] = {}
        self.idle_since = self.ready = born
        self.closes = self.ends = self.turn = inf
        self.worked = -inf
        self.apart = apart
        self.pool = fleet.pool  # where it counts, wherever the fleet starts its next ones
        hidden = [(name, text) for name, text in self.blueprint.env.items() if isinstance(text, Hidden)]
        self.censor = censor_of(hidden) if hidden else None
        self.resting = 0
        self.served = 0  # executions that have ended in it
        self.yields = False
        self.gives = False  # its place up
        self.counts = False  # against `max_instances`, and in its pool
        self.become(STARTING)

    @property
    def asleep(self) -> bool:
        """Say whether all that it may run waits for other tasks: then others may run instead of it."""
        if self.yields:
            return self.resting >= len(self.busy)
        return self.resting >= (1 if self.apart else self.blueprint.slots)

    def become(self, state: str) -> None:
        """Change the state; the fleet counts its members by it."""
        fleet = self.fleet
        if not self.apart:
            fleet.starting += (state == STARTING) - (self.state == STARTING)
        self.state = state
        self.recount()

    def recount(self) -> bool:
        """Let the fleet count it, or no longer; return whether it counts."""
        counts = (self.state in PRESENT or self.yields) and not self.asleep
        if counts != self.counts:
            change = 1 if counts else -1
            self.fleet.present += change
            self.pool.count(self.fleet.name, change, apart=self.apart)
        gives = counts and self.yields
        if gives != self.gives:
            self.pool.give_up(self.fleet.name, 1 if gives else -1)
        self.counts, self.gives = counts, gives
        return counts

    def fits(self, timeout: float, now: float) -> bool:
        """Say whether a task that starts now ends, with its timeout, within the instance's life."""
        return now + timeout <= self.ends


class Fleet:
    """Hold the instances of one (function, version, environment variables, pool that the pipeline names).

    It finds the fullest one that has room. `pinned` is the version's number, an alias, or None for the live one; `chosen` is
    that pool, None if the function says where they are. `name` is also the name of its slots in admission. Members with free
    slots stand in buckets by how many they have, so that choosing and moving cost the same whatever their number.
    """

    __slots__ = (
        "blocked_until", "blueprint", "buckets", "cap", "chosen", "env", "failures", "function", "idle_timer",
        "last_to_close", "longest", "looking", "lowest", "mean", "measured", "members", "name", "pinned", "pool", "present",
        "progress", "routed", "running", "sleepers", "starting", "timeouts", "typical", "usage", "users", "warm_until",
        "warmup", "weighed",
    )  # fmt: skip

    def __init__(
        self,
        name: str,
        function: str,
        pinned: int | str | None,
        env: Mapping[str, str],
        usage: Usage,
        pool: Pool,
        chosen: str | None,
    ) -> None:
        self.name = name
        self.function = function
        self.pinned = pinned
        self.env = env
        self.pool = pool
        self.chosen = chosen
        self.routed: str | None = None  # the pool whose route takes what runs here
        self.measured = Measured()
        self.blueprint: Blueprint | None = None
        self.members: dict[int, Member] = {}
        self.present = 0  # members that count against `max_instances`
        self.starting = 0  # those of them that will have slots soon
        self.cap: Cap | None = None  # what kept instances from starting when they were last asked for
        self.usage = usage
        self.users = 0  # pipelines that run here
        self.timeouts: Counter[float] = Counter()  # of those, how many have each
        self.longest = 0.0  # the longest of these
        self.warmup: float | None = None  # seconds from an instance's launch until it is ready, moving average
        self.typical: int | None = None  # bytes that an instance was found to use
        self.weighed = -inf  # when that was last looked at
        self.last_to_close = -inf  # when the last of the members closes for its age
        self.buckets: list[dict[int, Member]] = [{}, {}]
        self.lowest = 1
        self.mean: float | None = None  # seconds a task takes, moving average
        self.running = 0
        self.progress = 0.0  # when a task last ended here, or the first one began after a rest
        self.failures = 0  # instances in a row that ended before they were ready
        self.blocked_until = 0.0
        self.warm_until = -inf  # an instance is kept ready until then, though nothing asks for it
        self.looking = False  # a timer will look at what is wanted again
        self.idle_timer: asyncio.TimerHandle | None = None
        self.sleepers: dict[Member, None] = {}  # instances asleep of which a task wants to go on, in that order

    def enter(self, timeout: float) -> bool:
        """Let a pipeline with that timeout run here; say whether it is the longest now."""
        self.users += 1
        self.timeouts[timeout] += 1
        longest, self.longest = self.longest, max(self.longest, timeout)
        return self.longest != longest

    def leave(self, timeout: float) -> bool:
        """Let a pipeline with that timeout run here no longer; say whether another is the longest now."""
        self.users -= 1
        self.timeouts[timeout] -= 1
        if self.timeouts[timeout]:
            return False
        del self.timeouts[timeout]
        longest = self.longest
        if timeout == longest:
            self.longest = max(self.timeouts, default=0.0)
        return self.longest != longest

    def choose(self) -> Member | None:
        """Take one slot of the fullest member that has a free one."""
        buckets = self.buckets
        while self.lowest < len(buckets):
            if bucket := buckets[self.lowest]:
                identity, member = bucket.popitem()
                member.free -= 1
                if member.free:
                    self.lowest = member.free
                    buckets[member.free][identity] = member
                return member
            self.lowest += 1
        return None

    def least(self, spec: FunctionSpec, now: float) -> int:
        """Return how many instances there are to be, whether they are asked for or not."""
        return max(spec.min_instances, int(now < self.warm_until))

    def idle(self) -> Member | None:
        """Return a member that has nothing to do, and takes a place; None if there is none."""
        slots = 1 if self.blueprint is None else self.blueprint.slots
        bucket = self.buckets[slots] if slots < len(self.buckets) else {}
        return next((member for member in bucket.values() if member.state == READY), None)

    def give(self, member: Member, count: int) -> None:
        """Add free slots to a member."""
        identity = member.instance.id
        if member.free:
            del self.buckets[member.free][identity]
        member.free += count
        while len(self.buckets) <= member.free:
            self.buckets.append({})
        self.buckets[member.free][identity] = member
        self.lowest = min(self.lowest, member.free)

    def close(self, member: Member) -> int:
        """Take all free slots from a member, so that nothing new is put into it; return how many there were."""
        free, member.free = member.free, 0
        if free:
            del self.buckets[free][member.instance.id]
        return free


class Plant:
    """Hold what all loops of one project work on. `clock` is monotonic seconds, `wall` the wall clock.

    `boot` names what `clock` counts from: moments of two servers can be compared if it is the same, and not empty.
    """

    def __init__(
        self,
        store: Store,
        compute: Compute,
        *,
        project: str,
        clock: Callable[[], float],
        wall: Callable[[], float],
        boot: str,
        rng: random.Random,
    ) -> None:
        self.store = store
        self.compute = compute
        self.project = project
        self.project_id = 0
        self.clock = clock
        self.wall = wall
        self.boot = boot
        self.rng = rng
        self.admission = Admission()
        self.functions: dict[str, Function] = {}
        self.pipes: dict[str, Pipe] = {}
        self.pools: dict[str, Pool] = {}
        self.fleets: dict[str, Fleet] = {}
        self.members: dict[int, Member] = {}
        self.running: dict[int, Running] = {}
        self.sending: set[int] = set()  # tasks that the store may have already, and admission will hear of
        self.calls: dict[int, asyncio.Future[Attempt]] = {}  # synchronous calls that wait for their end, by task
        self.hosts: dict[str, str] = {}  # functions by the host names that are theirs alone
        self.visits: dict[int, Visit] = {}  # web requests that wait or run, by task
        self.accepting = False
        self.stopping = False  # instances are being ended by a clean stop: that costs their tasks nothing
        self._attempts = count(1)

    def next_attempt(self) -> int:
        """Return a number for an attempt that no other has in this server's life."""
        return next(self._attempts)

    def shared_limit(self, name: str) -> Gate | None:
        """Return the shared limit of a name; the ceilings, which are gates too, have names with a space."""
        return None if " " in name else self.admission.gates.get(name)

    def answer(self, attempt: Attempt) -> None:
        """Give a synchronous call its outcome."""
        call = self.calls.get(attempt.task.id)
        if call is not None and not call.done():
            call.set_result(attempt)

    def running_attempt(self, task_id: int) -> int | None:
        """Return the attempt in which a task runs now, or None. It looks through all that runs: not for the hot path."""
        for attempt, running in self.running.items():
            for task in running.tasks:
                if task.id == task_id:
                    return attempt
        return None

    def running_tasks(self) -> set[int]:
        """Return the ids of all tasks that run now."""
        return {task.id for running in self.running.values() for task in running.tasks}
