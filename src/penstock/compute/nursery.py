"""The zygotes of one blueprint: launches wait here, and zygotes that have room take them, the first one first.

The laws. There is one zygote, unless so many launches wait that importing the code again is quicker than forking them all;
then further ones help, one per core at most and if the machine has memory to spare, and go after a rest. One that has forked
often or lived long is replaced: its children have its address layout, which must not be there to be learned for ever. Both
are prepared aside, so that no launch waits for them, nor fails with them.
"""

import asyncio
import os
import signal
import socket
from itertools import islice
from typing import TYPE_CHECKING

from penstock.compute.protocol import Blueprint, Exit, NotIsolated
from penstock.compute.zygotes import Exits, Zygote
from penstock.runtime.control import BATCH

if TYPE_CHECKING:
    from collections.abc import Callable

CORES = len(os.sched_getaffinity(0))
"""Zygotes of one blueprint that fork side by side."""

MANY = 128
"""Launches that must wait, for each zygote that there is, before another one helps."""

FORKS, AGE = 10_000, 6 * 3600.0
"""Instances that were asked of a zygote, and seconds that it has lived, before it is replaced at the next launch."""

REST = 30.0
"""Seconds without work after which zygotes that help go, and those between an attempt to start one that failed and the next."""

SPARE = 0.1
"""The part of the machine's memory that must be left for a zygote that helps: it holds what the code imports once more."""

IMPORT_TIMEOUT = 60.0
"""Seconds that an import may take that nobody waits for."""

_FORK = 0.001
_RETRY = 0.002


class Nursery:
    """Launch the instances of one blueprint. `start` starts a zygote; `exits` hears of launches that come to nothing.

    `memory_left` returns (bytes of memory that are available, bytes in all).
    """

    def __init__(
        self,
        blueprint: Blueprint,
        start: "Callable[[Nursery], Zygote]",
        exits: Exits,
        memory_left: "Callable[[], tuple[int, int]]",
    ) -> None:
        self.blueprint = blueprint
        self._start = start
        self._exits = exits
        self._memory_left = memory_left
        self._loop = asyncio.get_running_loop()
        self._zygotes: list[Zygote] = []
        self._waiting: dict[int, socket.socket] = {}
        self._placed: dict[int, Zygote] = {}
        self._dispatching = False
        self._retired = False
        self._shared_at = 0.0
        self._starts_from = 0.0
        self._rest_timer: asyncio.TimerHandle | None = None

    @property
    def first(self) -> Zygote:
        """Return the zygote that a launch goes to if it has room."""
        return self._zygotes[0]

    @property
    def is_empty(self) -> bool:
        """Say whether no zygote is left."""
        return not self._zygotes

    def start(self) -> Zygote:
        """Start a zygote. Raises `OSError` and `NotIsolated`."""
        zygote = self._start(self)
        self._zygotes.append(zygote)
        return zygote

    def launch(self, number: int, line: socket.socket) -> None:
        """Ask for an instance that serves over that socket, which is closed here once it is on its way."""
        self._waiting[number] = line
        self.dispatch_soon()

    def kill(self, number: int) -> None:
        """Ask for an instance to be killed, with what it started."""
        zygote = self._placed.get(number)
        if zygote is not None:
            zygote.kill(number)
        elif number in self._waiting:
            self._waiting.pop(number).close()
            exit = Exit(None, signal.SIGKILL, killed=False, detail="It was killed before it started.")  # noqa: A001
            self._loop.call_soon(self._exits.exited, number, 0, exit)
            self.dispatch_soon()

    def zygote_of(self, number: int) -> Zygote | None:
        """Return the zygote that an instance was asked of."""
        return self._placed.get(number)

    def forget(self, number: int) -> Zygote | None:
        """Forget an instance that is gone; return its zygote."""
        return self._placed.pop(number, None)

    def retire(self) -> None:
        """End the zygotes as soon as none of their instances is left."""
        self._retired = True
        if self._rest_timer is not None:
            self._rest_timer.cancel()
        if not self._waiting:
            for zygote in self._zygotes:
                zygote.retire()

    def abandoned(self, zygote: Zygote) -> None:
        """Hear that a zygote is gone. Others take what waits; without any, that is gone too."""
        if zygote not in self._zygotes:
            return
        self._zygotes.remove(zygote)
        if not zygote.is_able:
            self._starts_from = self._loop.time() + REST
        if self._zygotes:
            self.dispatch_soon()
            return
        waiting, self._waiting = self._waiting, {}
        for number, line in waiting.items():
            line.close()
            exit = Exit(None, None, killed=False, detail=zygote.epitaph())  # noqa: A001
            self._loop.call_soon(self._exits.exited, number, 0, exit)

    def dispatch_soon(self) -> None:
        """Hand out what waits when this turn of the loop is over, all of it together."""
        if not self._dispatching:
            self._dispatching = True
            self._loop.call_soon(self._dispatch)

    def _dispatch(self) -> None:
        self._dispatching = False
        for zygote in self._zygotes:
            while self._waiting and zygote.room:
                if not self._hand_out(zygote):
                    self._loop.call_later(_RETRY, self.dispatch_soon)
                    break
        if not self._retired:
            self._review()
        elif not self._waiting:
            self.retire()

    def _hand_out(self, zygote: Zygote) -> bool:
        """Ask a zygote for some instances; return whether that could be sent."""
        batch = list(islice(self._waiting.items(), min(zygote.room, BATCH)))
        if not zygote.spawn(batch):
            return False
        for number, line in batch:
            line.close()
            del self._waiting[number]
            self._placed[number] = zygote
        if zygote is not self.first:
            self._shared_at = self._loop.time()
        return True

    def _review(self) -> None:
        """Start another zygote if one is wanted; let old ones go when there is a younger one."""
        able = [zygote for zygote in self._zygotes if zygote.is_able]
        young = [zygote for zygote in able if zygote.forks < FORKS and self._loop.time() < zygote.born + AGE]
        if young and len(young) < len(able):
            for zygote in able:
                if zygote not in young:
                    self._zygotes.remove(zygote)
                    zygote.retire()
        elif able and len(able) == len(self._zygotes) and (not young or self._wants_help()):
            self._start_aside()

    def _wants_help(self) -> bool:
        """Say whether so much waits that importing the code once more is worth it, and the machine has the memory."""
        share = len(self._waiting) / len(self._zygotes)
        first = self.first
        if share < max(MANY, first.took / _FORK) or len(self._zygotes) >= CORES or first.ready.result():
            return False
        left, total = self._memory_left()
        return left > SPARE * total

    def _start_aside(self) -> None:
        if self._loop.time() < self._starts_from:
            return
        try:
            zygote = self.start()
        except (OSError, NotIsolated):  # those that there are go on
            self._starts_from = self._loop.time() + REST
            return
        slow = f"Importing '{self.blueprint.handler}' took longer than {IMPORT_TIMEOUT:g} s."
        self._loop.call_later(IMPORT_TIMEOUT, zygote.fail, slow)
        if self._rest_timer is None:
            self._rest_timer = self._loop.call_later(REST, self._rest)

    def _rest(self) -> None:
        """Let those go that helped, if they have not for a while."""
        self._rest_timer = None
        able = [zygote for zygote in self._zygotes if zygote.is_able]
        if not self._waiting and self._loop.time() >= self._shared_at + REST:
            for zygote in able[1:]:
                self._zygotes.remove(zygote)
                zygote.retire()
        if len(self._zygotes) > 1:
            self._rest_timer = self._loop.call_later(REST, self._rest)
