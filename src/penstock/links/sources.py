"""Watched sources: a function that names a folder or a bucket is deployed from it whenever something changes there.

What is deployed was read while nothing changed. Code that cannot be taken is shown with the function and in the log, what
was live stays live, and the next change tries again. A folder that has not changed since it was taken is not taken again:
a rollback holds, over a restart too. One that is named anew is, whatever was taken from it before.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import hashlib
import json
import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from penstock.client.bundle import pack
from penstock.domain.errors import PenstockError
from penstock.engine.model import Source
from penstock.links.bucket import Bucket, fingerprint
from penstock.links.folder import NOISY, QUIET, WatchedFolder

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from penstock.domain.specs import SourceSpec
    from penstock.engine.engine import Engine

NOTE: Final = "source "
"""Prefix of the notes that say what was taken last: from where, the bundle's digest, and what a bucket looked like."""

RETRY: Final = 10.0
"""Seconds until a folder is looked at again that the kernel would not watch."""

REST: Final = 1.0
"""Seconds between two looks at a bucket that is being written to: what is taken was the same both times."""

MOST_WAIT: Final = 600.0
"""Seconds until a bucket is looked at again that cannot be read, at most; the wait doubles with each failure in a row."""

MOST_DOUBLED: Final = 30
"""Failures after which the wait grows no more: a bucket may be away for weeks."""

MOST_BYTES: Final = 256 << 20

log = logging.getLogger(__name__)


class Sources:
    """Deploy functions from the folders and buckets that they name."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._plant = engine.plant
        self._jobs: dict[str, tuple[SourceSpec, asyncio.Task[None]]] = {}
        self._job: asyncio.Task[None] | None = None
        self._anew: set[str] = set()  # functions that named their source since the server is up, until it is taken

    def open(self) -> None:
        """Begin to watch, also what is named later."""
        self._job = asyncio.get_running_loop().create_task(self._follow())

    async def close(self, patience: float) -> None:
        """Watch nothing more; a deploy that is under way may take `patience` seconds."""
        jobs = [job for _, job in self._jobs.values()]
        jobs += [] if self._job is None else [self._job]
        for job in jobs:
            job.cancel()
        if jobs:
            await asyncio.wait(jobs, timeout=patience)

    async def _follow(self) -> None:
        changed = self._engine.configurer.changed
        rung = changed.rung
        self._agree()
        while True:
            await changed.wait(rung, None)
            rung = changed.rung
            self._anew.update(self._agree())

    def _agree(self) -> list[str]:
        """Watch what functions name now, and nothing else; return those that are watched anew."""
        functions = self._plant.functions
        wanted = {name: one.spec.source for name, one in functions.items() if one.spec.source is not None}
        for name, (source, job) in list(self._jobs.items()):
            if wanted.get(name) != source:
                job.cancel()
                del self._jobs[name]
        anew = [name for name in wanted if name not in self._jobs]
        for name in anew:
            functions[name].source = Source()
            source = wanted[name]
            work = self._poll(name, source) if source.is_bucket else self._watch(name, Path(source.url))
            self._jobs[name] = (source, asyncio.get_running_loop().create_task(work))
        return anew

    async def _watch(self, name: str, folder: Path) -> None:
        """Take a folder's code now and after every change."""
        rested = False
        while True:
            try:
                with contextlib.closing(WatchedFolder(folder)) as watched:
                    if await self._look(name, folder, watched, rested=rested):
                        await watched.changed()
                    rested = await self._settle(name, folder, watched)
            except OSError as error:  # there is nothing that would tell of a change
                self._tell(name, _words(folder, error))
                await asyncio.sleep(RETRY)

    async def _settle(self, name: str, folder: Path, watched: WatchedFolder) -> bool:
        """Return, with True, when a folder rests."""
        while not await watched.settled():
            told = f"{folder} has kept changing for {NOISY:g} s. It is taken once it rests for {QUIET:g} s."
            self._tell(name, told)
        return True

    async def _look(self, name: str, folder: Path, watched: WatchedFolder, *, rested: bool) -> bool:
        """Take what is in a folder; return False if it changed meanwhile."""
        try:
            await _surely(asyncio.to_thread(watched.begin))
            if not rested:
                await self._settle(name, folder, watched)
            body = await asyncio.to_thread(pack, folder, MOST_BYTES)
            if watched.has_changed():  # what was read may be half of it
                return False
            await _surely(self._take(name, str(folder), body))
        except (OSError, ValueError, PenstockError) as error:
            if watched.has_changed():
                return False
            self._tell(name, _words(folder, error))
        except Exception as error:  # whatever it is, the next change tries again
            log.exception("The source of '%s' could not be taken.", name)
            self._tell(name, f"{folder} could not be taken: {error!r}.")
        return True

    # buckets ----------------------------------------------------------------------------------------------------------
    async def _poll(self, name: str, source: SourceSpec) -> None:
        """Look at a bucket again and again, and take what has changed."""
        bucket: Bucket | None = None
        tried = ""  # code that was refused is not tried again
        failures = 0
        while True:
            try:
                bucket = bucket or Bucket(source)
                tried = await self._look_into(name, source, bucket, tried)
                failures = 0
            except Exception as error:
                failures += 1
                if not isinstance(error, OSError | ValueError | PenstockError):
                    log.exception("The source of '%s' could not be taken.", name)
                self._tell(name, str(error) or repr(error))
            await asyncio.sleep(wait_after(failures, source.every))

    async def _look_into(self, name: str, source: SourceSpec, bucket: Bucket, tried: str) -> str:
        """Take what is in a bucket if that has changed; return what it looks like. Raises what the look came to."""
        seen = await bucket.look()
        look = fingerprint(seen)
        if look == tried or await self._is_taken(name, source.url, look):
            return look
        while True:
            body = await bucket.fetch(seen)
            await asyncio.sleep(REST)
            before, seen = seen, await bucket.look()
            if body is not None and seen == before:
                look = fingerprint(seen)
                break
        try:
            await _surely(self._take(name, source.url, body, look))
        except PenstockError as error:
            self._tell(name, str(error))
        return look

    async def _is_taken(self, name: str, url: str, look: str) -> bool:
        last = await self._plant.store.note(self._plant.project_id, NOTE + name)
        function = self._plant.functions.get(name)
        taken = None if last is None else json.loads(last)
        known = taken is not None and (taken[0], taken[2:]) == (url, [look]) and name not in self._anew
        if not known or function is None or function.live is None:
            return False
        function.source.error = None
        return True

    # what was found ---------------------------------------------------------------------------------------------------
    async def _take(self, name: str, where: str, body: bytes, *look: str) -> None:
        """Deploy code unless it is what was taken last; `look` is what a bucket looked like."""
        plant = self._plant
        taken = json.dumps([where, hashlib.sha256(body).hexdigest(), *look]).encode()
        last = await plant.store.note(plant.project_id, NOTE + name)
        function = plant.functions.get(name)
        live = None if function is None else function.live
        if last != taken or live is None or name in self._anew:
            if live is None or live.bundle != json.loads(taken)[1]:
                deployed = await self._engine.configurer.deploy(name, body, None)
                log.info("Version %d of '%s' was deployed from %s.", deployed.version.number, name, where)
            await plant.store.save_note(plant.project_id, NOTE + name, taken)
            self._anew.discard(name)
            self._tell(name, None)
        elif function is not None:
            function.source.error = None

    def _tell(self, name: str, error: str | None) -> None:
        """Let people see what came of the last look that came to something."""
        function = self._plant.functions.get(name)
        if function is None:
            return
        if error is not None and error != function.source.error:
            log.warning("The source of '%s' was not deployed: %s", name, error)
        function.source.error, function.source.at = error, self._plant.wall()


def wait_after(failures: int, every: float) -> float:
    """Return the seconds until a bucket is looked at again, after so many failures in a row."""
    return max(every, min(MOST_WAIT, every * 2.0 ** min(failures, MOST_DOUBLED)))


async def _surely(work: Coroutine[Any, Any, None]) -> None:
    """Do something to its end, also when it is not wanted any more: a change of the configuration, a look through a folder."""
    job = asyncio.get_running_loop().create_task(work)
    try:
        await asyncio.shield(job)
    except asyncio.CancelledError:
        await asyncio.wait([job])
        if not job.cancelled():
            job.exception()
        raise


def _words(folder: Path, error: Exception) -> str:
    """Return what is wrong, and what to do about it."""
    if not isinstance(error, OSError):
        return str(error)
    if error.errno == errno.ENOSPC:
        return f"The kernel watches no more folders than it does: raise fs.inotify.max_user_watches to watch {folder}."
    if error.errno in {errno.EMFILE, errno.ENFILE}:
        return f"There is no descriptor left to watch {folder}: raise fs.inotify.max_user_instances, or the limit of files."
    if error.errno == errno.ENOENT and error.filename == str(folder):
        return f"There is no folder {folder} on the server's machine. It is taken when it comes."
    return f"{error.filename or folder} cannot be read: {error.strerror}."
