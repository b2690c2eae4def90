"""Keep instances within their memory by looking at what they use, where no control group may be used for that.

What counts is PSS, of the instance and of the processes below it or in its session: memory that forked processes share is
divided among them, where RSS would count it in full for each. PSS costs the kernel a walk over all pages (about 25 ms for
1 GB), RSS a few microseconds, and RSS is never smaller; so PSS is read only when RSS has grown by what was left to the limit.

The most that an instance used comes from the same looks, so it costs nothing: RSS as long as that is within the limit (so what
is shared may count too much there), PSS above. What one process used between two looks the kernel knows.

How often: so that an instance which grows by `FASTEST` from now on is looked at before it uses 1.2 times its limit, within the
bounds of `SOONEST` and `LATEST`. Looking at those that are calm (below half of their limit, and not growing) takes at most
2 % of a core for a whole zygote, so with very many of them each is looked at less often.
"""

import time
from collections.abc import Callable

from penstock.runtime.guards import Guard
from penstock.runtime.kernel import kill_session
from penstock.runtime.procfs import SHARE, Below, kill_kin, read_pss, read_rss

FASTEST = 2 << 30
"""Bytes by which a process is taken to grow in a second at most: about what one core writes to fresh memory."""

SOONEST, LATEST = 0.01, 1.0
"""Seconds between two looks at an instance."""

_SEEN_BY = 1.2  # times the limit
_BETWEEN = 4  # readings of one instance's PSS are apart by that many times what one takes


class _Watched:
    """Hold one instance. `pss` was weighed when RSS was `rss`; `over` is what it used when it was killed for that."""

    __slots__ = ("due", "over", "peak", "pid", "pss", "rss", "slack", "used", "weigh_at")

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.pss = self.rss = self.used = self.peak = 0
        self.due = self.slack = self.weigh_at = 0.0
        self.over: int | None = None


class Polling(Guard):
    """Look at the instances of one zygote; each may use `limit` bytes."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._watched: dict[int, _Watched] = {}
        self._heavy: dict[int, _Watched] = {}  # whose RSS is over the limit, the one weighed longest ago first
        self._below = Below()
        self._due = self._calm_from = self._again_from = 0.0

    def watch(self, number: int, pid: int) -> None:  # noqa: ARG002 - known by its process here
        """Begin to watch an instance."""
        self._watched[pid] = _Watched(pid)
        self._due = 0.0

    def wait(self, now: float) -> "float | None":
        """Return in how many seconds to look at instances, None if there is none."""
        return max(0.0, self._due - now) if self._watched else None

    def look(self, now: float) -> None:
        """Look at the instances for which it is time, and kill those that use more than they may."""
        if not self._watched or now < self._due:
            return
        began = time.thread_time()
        self._below.refresh(now, self._watched.keys())
        self._due = now + LATEST
        for watched in self._watched.values():
            if watched.due - watched.slack <= now:
                self._look_at(watched, now)
            self._due = min(self._due, watched.due)
        if self._heavy and now >= self._again_from:
            self._look_again(next(iter(self._heavy.values())), now)
        self._calm_from = now + (time.thread_time() - began) / SHARE

    def peak(self, number: int, pid: int, most: int) -> int:  # noqa: ARG002 - known by its process here
        """Return the most that an instance was seen to use; `most`, if that is more and its PSS was never asked for."""
        watched = self._watched.get(pid)
        if watched is None:
            return most
        return watched.peak if watched.pss else max(watched.peak, most)

    def ended(self, number: int, pid: int) -> "int | None":  # noqa: ARG002 - known by its process here
        """Forget an instance; return how many bytes it used if it was killed for that, None if it was not."""
        self._below.forget(pid)
        self._heavy.pop(pid, None)
        watched = self._watched.pop(pid, None)
        return None if watched is None else watched.over

    def _look_at(self, watched: _Watched, now: float) -> None:
        """Look at an instance, and say when to look again."""
        rss = self._sum(read_rss, watched)
        used = watched.pss + max(0, rss - watched.rss)
        if used > self._limit and now >= watched.weigh_at:
            used = self._weigh(watched, rss, now)
        calm = used < self._limit // 2 and used <= watched.used
        watched.used = used
        watched.peak = max(watched.peak, used)
        room = max(0.0, self._limit * _SEEN_BY - used)
        watched.due = now + min(LATEST, max(SOONEST, room / FASTEST))
        if calm:
            watched.due = max(watched.due, self._calm_from)
        watched.slack = (watched.due - now) / 4  # so that many are looked at in one go

    def _look_again(self, watched: _Watched, now: float) -> None:
        """Weigh an instance whose RSS has not grown: what it shared may have become its own by being written to."""
        began = time.thread_time()
        self._weigh(watched, self._sum(read_rss, watched), now)
        self._again_from = now + (time.thread_time() - began) / SHARE

    def _weigh(self, watched: _Watched, rss: int, now: float) -> int:
        """Return the PSS of an instance; kill it if that is over the limit."""
        began = time.monotonic()
        watched.rss, watched.pss = rss, self._sum(read_pss, watched)
        watched.weigh_at = now + _BETWEEN * (time.monotonic() - began)
        self._heavy.pop(watched.pid, None)
        self._heavy[watched.pid] = watched
        if watched.pss > self._limit and watched.over is None:
            watched.over = watched.pss
            self._kill(watched)
        return watched.pss

    def _sum(self, read: Callable[[int], int], watched: _Watched) -> int:
        return read(watched.pid) + sum(map(read, self._below.of(watched.pid)))

    def _kill(self, watched: _Watched) -> None:
        """Kill an instance and what it started, those included that left its group."""
        kill_session(watched.pid)
        kill_kin(self._below.of(watched.pid))
