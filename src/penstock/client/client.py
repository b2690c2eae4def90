"""The sync client: what a user calls. `AsyncClient` is its mirror, name for name."""

import os
import ssl
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from types import TracebackType
from typing import Any, Self, TypeVar

from penstock.client import calls
from penstock.client.bundle import pack
from penstock.client.call import AGENT, Call, Keys, Page, Persistence
from penstock.client.calls import Seconds, Settings
from penstock.client.discovery import find_server
from penstock.client.errors import ServerUnreachable
from penstock.client.events import EventReader
from penstock.client.gathering import Progress, lines_of
from penstock.client.local import HANDLER, LocalMap, bundle_of, new_name, wrapped
from penstock.client.maps import Map
from penstock.client.models import (
    Change,
    Deployed,
    Function,
    Limit,
    LogLine,
    MapCounts,
    Pipeline,
    Plan,
    Pool,
    Task,
    Version,
    Why,
)
from penstock.client.sender import Sender
from penstock.client.sends import Send, batches
from penstock.client.shares import LimitHandle, PoolHandle
from penstock.client.waiting import Reconnects, TaskWait

T = TypeVar("T")


class Client:
    """Talk to a Penstock server. Safe to share between threads; close it, or use it with `with`.

    Without a `url` it finds the server by itself: PENSTOCK_URL and PENSTOCK_TOKEN, else the one that runs in the data
    directory (`data`, PENSTOCK_DATA, or `./.penstock`). `retries` is how often a call is sent again that did not reach the
    server; `try_later_for` is how many seconds a call may wait where the server is full and says when to come again.
    `safe_sends` gives every send an idempotency key, so that it can be repeated when its answer was lost; without,
    sending costs the server a little less, and a send whose answer was lost raises ServerUnreachable.
    """

    def __init__(
        self,
        url: str | None = None,
        token: str | None = None,
        *,
        data: str | os.PathLike[str] | None = None,
        retries: int = 5,
        try_later_for: float = 0.0,
        safe_sends: bool = True,
        ssl_context: ssl.SSLContext | None = None,
    ) -> None:
        server = find_server(url, token, data)
        self._sender = Sender(server.url, server.token, AGENT, Persistence(retries, try_later_for), ssl_context)
        self._retries = retries
        self._keys = Keys() if safe_sends else None

    @property
    def url(self) -> str:
        """Return the server's URL."""
        return self._sender.url

    def close(self) -> None:
        """Close the connections."""
        self._sender.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    # what is there

    def function(self, name: str) -> "FunctionHandle":
        """Return a handle on a function; nothing is asked until it is used."""
        return FunctionHandle(self, name)

    def pipeline(self, name: str) -> "PipelineHandle":
        """Return a handle on a pipeline; nothing is asked until it is used."""
        return PipelineHandle(self, name)

    def limit(self, name: str) -> LimitHandle:
        """Return a handle on a shared limit; nothing is asked until it is used."""
        return LimitHandle(self, name)

    def pool(self, name: str) -> PoolHandle:
        """Return a handle on a pool; nothing is asked until it is used."""
        return PoolHandle(self, name)

    def functions(self) -> Iterator[Function]:
        """Yield every function, by name, fetching page by page."""
        return self._listing(calls.list_functions)

    def pipelines(self, function: str | None = None) -> Iterator[Pipeline]:
        """Yield every pipeline (of a function), by name, fetching page by page."""
        return self._listing(lambda after: calls.list_pipelines(after, function=function))

    def limits(self) -> Iterator[Limit]:
        """Yield every shared limit, by name, fetching page by page."""
        return self._listing(calls.list_limits)

    def rotate_key(self) -> int:
        """Let the server make a new key for secrets, and return how many settings were sealed with it.

        Raises Conflict if its key comes from a variable.
        """
        return self._run(calls.rotate_key())

    def pools(self) -> Iterator[Pool]:
        """Yield every pool, by name, fetching page by page."""
        return self._listing(calls.list_pools)

    def status(self) -> dict[str, Any]:
        """Return how the server is."""
        return self._run(calls.status())

    # tasks

    def task(self, task: str) -> Task:
        """Return a task as it stands. Raises NotFound."""
        return self._run(calls.show_task(task))

    def tasks(self, pipeline: str | None = None, state: str | None = None) -> Iterator[Task]:
        """Yield tasks, the newest first, fetching page by page."""
        return self._listing(lambda before: calls.list_tasks(pipeline, state, before))

    def wait(self, task: str, timeout: Seconds | None = None) -> Task:
        """Return a task when it has ended, however it did. Raises TaskNotEnded after `timeout` seconds."""
        waiting = TaskWait(timeout)
        while True:
            found = self._run(calls.show_task(task, waiting.next_poll()))
            if found.ended:
                return found
            waiting.check(found)

    def cancel(self, task: str) -> Task:
        """Cancel a task; one that runs is being cancelled when this returns. Raises Conflict if it has ended."""
        return self._run(calls.cancel(task))

    def why(self, task: str) -> Why:
        """Return what a task waits for."""
        return self._run(calls.why(task))

    # maps

    def map(
        self,
        function: Callable[[Any], Any],
        items: Iterable[Any],
        *,
        return_exceptions: bool = False,
        stragglers: float | None = None,
        progress: Progress | None = None,
        **settings: Any,
    ) -> LocalMap:
        """Run a function of this program on the server for every item, without deploying it by hand.

        `settings` are those of a function: timeout, memory, max_instances and so on; for the others see `FunctionHandle.map`.
        The function, or lambda, is pickled and runs there as any code does that is deployed with this token. Both Pythons
        have to be of one version. Raises TypeError for what cannot be pickled, DeployFailed if the server cannot load it.
        """
        name, bundle = new_name(), bundle_of(function)
        lines = lines_of(wrapped(items))
        self._run(calls.deploy(name, bundle, {"handler": HANDLER, **settings}))
        try:
            started = self._run(calls.start_map("functions", name, lines, stragglers, self._key()))
        except BaseException:
            self.function(name).delete()
            raise
        return LocalMap(
            self, started.id, name, items=started.items, return_exceptions=return_exceptions, progress=progress
        )

    def map_of(self, name: str, *, return_exceptions: bool = False, progress: Progress | None = None) -> Map:
        """Return a map that was started before, by its id; nothing is asked until it is used."""
        return Map(self, name, return_exceptions=return_exceptions, progress=progress)

    def maps(self) -> Iterator[MapCounts]:
        """Yield every map with its counts, the newest first, fetching page by page."""
        return self._listing(calls.list_maps)

    # the configuration, and what happened

    def apply(
        self, config: Mapping[str, Any], *, prune: bool = False, dry_run: bool = False, tasks: str = "refuse"
    ) -> Plan:
        """Make a configuration so, in one transaction; what it does not name stays, unless `prune`.

        `tasks` says what becomes of the tasks of removed pipelines: refuse, drain or discard. Raises InvalidSettings with
        every mistake.
        """
        return self._run(calls.apply(config, prune=prune, dry_run=dry_run, tasks=tasks))

    def changes(self, after: int = 0, *, follow: bool = False) -> Iterator[Change]:
        """Yield the configuration's changes after a sequence number; `follow` goes on with those to come."""
        if follow:
            return self._following(calls.follow_changes, lambda change: change.sequence, after)
        return self._listing(lambda place: calls.list_changes(after if place is None else place))

    def logs(
        self,
        *,
        task: str | None = None,
        pipeline: str | None = None,
        function: str | None = None,
        after: int | None = None,
        follow: bool = False,
    ) -> Iterator[LogLine]:
        """Yield what tasks wrote, the oldest first; `follow` goes on with what is to come."""
        of = {"task": task, "pipeline": pipeline, "function": function}
        if follow:
            return self._following(lambda place: calls.follow_logs(of, place), lambda line: line.position, after)
        return self._listing(lambda place: calls.list_logs(of, after if place is None else place))

    # how

    def _map(self, kind: str, name: str, body: bytes, stragglers: float | None, key: str | None, **how: Any) -> Map:
        started = self._run(calls.start_map(kind, name, body, stragglers, key or self._key()))
        return Map(self, started.id, items=started.items, **how)

    def _run(self, call: Call[T]) -> T:
        return self._sender.run(call)

    def _key(self) -> str | None:
        return self._keys.next() if self._keys else None

    def _listing(self, page_at: Callable[[Any], Call[Page[T]]]) -> Iterator[T]:
        place: Any = None
        while True:
            page = self._run(page_at(place))
            yield from page.items
            if page.next is None or not page.items:
                return
            place = page.next

    def _following(self, stream: Callable[[Any], Call[T]], place: Callable[[T], int], after: int | None) -> Iterator[T]:
        """Yield the events of a stream; where it ends or breaks, begin anew behind the last one."""
        reconnects = Reconnects(self._retries)
        while True:
            try:
                for event in self._sender.events(stream(after), EventReader()):
                    after = place(event)
                    reconnects.heard()
                    yield event
                time.sleep(reconnects.pause_after_end())
            except ServerUnreachable as failure:
                time.sleep(reconnects.pause_after(failure))


class FunctionHandle:
    """Act on one function."""

    def __init__(self, client: Client, name: str) -> None:
        self._client = client
        self.name = name

    def invoke(self, payload: Any = None, *, timeout: Seconds | None = None) -> Any:
        """Call the function and return its result; `timeout` bounds the whole call.

        Raises TaskFailed if it ended without one, Saturated if it could not start in time.
        """
        return self._client._run(calls.invoke("functions", self.name, payload, timeout))

    def map(
        self,
        items: Iterable[Any],
        *,
        return_exceptions: bool = False,
        stragglers: float | None = None,
        progress: Progress | None = None,
        key: str | None = None,
    ) -> Map:
        """Run the function for every item; the results can be read while they come. What fails is not tried again.

        `items` is at most 100,000, sent as one: all are on the server's disk when this returns, or none. `Map` says how
        results are read, and what `return_exceptions` does; `progress` is called with MapCounts meanwhile. An item that takes
        longer than `stragglers` times the median of the others is run a second time, and the first good end counts: the
        handler must not mind. `key` makes it safe to start the same map again, from another process too.
        """
        return self._client._map(
            "functions",
            self.name,
            lines_of(items),
            stragglers,
            key,
            return_exceptions=return_exceptions,
            progress=progress,
        )

    def deploy(self, path: str | os.PathLike[str], **settings: Any) -> Deployed:
        """Make the code in a file, a folder or a zip the live version.

        `settings` make the function if there is none, else they change those that it has; None takes one away.

        Raises DeployFailed, with the traceback, if it does not import or its packages cannot be installed; the version that
        was live stays live.
        """
        return self._client._run(calls.deploy(self.name, pack(path), settings))

    def rollback(self, version: int | None = None) -> Deployed:
        """Make an earlier version live again, with the settings that it had.

        Without a `version` it is the one that the live version took over from, so each further rollback goes one further
        back. Raises Conflict if there is none, DeployFailed if it does not import any more.
        """
        return self._client._run(calls.rollback(self.name, version))

    def alias(self, name: str, version: int | None) -> Function:
        """Let an alias point at a version (None: take it away); calls and pipelines that name it follow at once.

        Raises InvalidSettings if there is no such version, or if pipelines use an alias that is to go.
        """
        return self._client._run(calls.patch_function(self.name, {"aliases": {name: version}}))

    def versions(self) -> list[Version]:
        """Return the function's versions."""
        return self._client._run(calls.list_versions(self.name))

    def show(self) -> Function:
        """Return the function as it is. Raises NotFound."""
        return self._client._run(calls.show_function(self.name))

    def put(self, settings: Settings) -> Function:
        """Make the function, or replace its settings."""
        return self._client._run(calls.put_function(self.name, settings))

    def patch(self, settings: Settings) -> Function:
        """Change some of the settings; None removes one."""
        return self._client._run(calls.patch_function(self.name, settings))

    def delete(self) -> None:
        """Remove the function. Raises Conflict if pipelines use it."""
        self._client._run(calls.delete_function(self.name))


class PipelineHandle:
    """Act on one pipeline."""

    def __init__(self, client: Client, name: str) -> None:
        self._client = client
        self.name = name

    def send(
        self,
        payload: Any = None,
        *,
        delay: Any = None,
        at: Any = None,
        key: str | None = None,
        cost: float | None = None,
        priority: int | None = None,
        expires_after: Any = None,
    ) -> str:
        """Put one task into the pipeline and return its id; it is on the server's disk by then.

        See `Send` for the arguments. Raises QueueFull if there is no room.
        """
        task = Send(payload, delay, at, key, cost, priority, expires_after)
        return self._client._run(calls.send(self.name, task, None if key else self._client._key()))

    def send_many(self, payloads: Iterable[Any], batch: int = 1000) -> list[str]:
        """Put many tasks (payloads, or `Send` objects) into the pipeline and return their ids, in order.

        They go in batches, each durable as a whole. Raises QueueFull if a batch found no room; those before it are kept.
        """
        return [task for ids in self.send_batches(payloads, batch) for task in ids]

    def send_batches(self, payloads: Iterable[Any], batch: int = 1000) -> Iterator[list[str]]:
        """Put as many tasks into the pipeline as an iterator gives, in bounded memory; yield each batch's ids."""
        for body in batches(payloads, batch):
            yield self._client._run(calls.send_batch(self.name, body, self._client._key()))

    def invoke(self, payload: Any = None, *, timeout: Seconds | None = None) -> Any:
        """Call the pipeline's function under the pipeline's limits and return its result; `timeout` bounds the whole call.

        Raises TaskFailed if it ended without one, Saturated if it could not start in time.
        """
        return self._client._run(calls.invoke("pipelines", self.name, payload, timeout))

    def map(
        self,
        items: Iterable[Any],
        *,
        return_exceptions: bool = False,
        stragglers: float | None = None,
        progress: Progress | None = None,
        key: str | None = None,
    ) -> Map:
        """Send every item through the pipeline, under its limits and with its retries; the results can be read as they come.

        See `FunctionHandle.map` for the arguments.
        """
        return self._client._map(
            "pipelines",
            self.name,
            lines_of(items),
            stragglers,
            key,
            return_exceptions=return_exceptions,
            progress=progress,
        )

    def pause(self) -> Pipeline:
        """Let the pipeline start nothing more; what runs goes on, what is sent waits."""
        return self._client._run(calls.pause(self.name))

    def drain(self) -> Pipeline:
        """Let the pipeline take no more tasks: sending raises Conflict. What it has goes on, also if it was paused."""
        return self._client._run(calls.drain(self.name))

    def resume(self) -> Pipeline:
        """Let the pipeline take and start tasks again."""
        return self._client._run(calls.resume(self.name))

    def dead(self) -> Iterator[Task]:
        """Yield the tasks that failed for good, the newest first."""
        return self._client._listing(lambda before: calls.list_dead(self.name, before))

    def redrive(self, tasks: Iterable[str] | None = None) -> int:
        """Queue dead tasks again (those named, or all) and return how many."""
        return self._client._run(calls.redrive(self.name, None if tasks is None else list(tasks)))

    def purge(self) -> int:
        """Forget the dead tasks and return how many there were."""
        return self._client._run(calls.purge(self.name))

    def show(self) -> Pipeline:
        """Return the pipeline as it is. Raises NotFound."""
        return self._client._run(calls.show_pipeline(self.name))

    def put(self, settings: Settings) -> Pipeline:
        """Make the pipeline, or replace its settings."""
        return self._client._run(calls.put_pipeline(self.name, settings))

    def patch(self, settings: Settings) -> Pipeline:
        """Change some of the settings; None removes one."""
        return self._client._run(calls.patch_pipeline(self.name, settings))

    def delete(self, tasks: str | None = None) -> bool:
        """Remove the pipeline; `tasks` (refuse, drain or discard) says what becomes of those it has.

        Returns whether it has gone: one that is drained goes when its tasks are done. Raises Conflict if it has some.
        """
        return self._client._run(calls.delete_pipeline(self.name, tasks))
