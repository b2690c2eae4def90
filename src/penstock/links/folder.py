"""One folder that is watched: the kernel tells what changes in it, and nobody asks again and again.

The law: whatever changes after `begin` has returned is heard of. What is never packed is not watched, and the folders above
are, so that a folder that vanishes and comes back is heard of too, or a link on the way to it that is turned to another one.
"""

import asyncio
import errno
from pathlib import Path, PurePosixPath
from typing import Final

from asyncinotify import Event, Inotify, Mask

from penstock.client.bundle import IGNORE_FILE, Ignored, walk

QUIET: Final = 0.2
"""Seconds without a change after which a folder is taken to be as it was meant: a checkout touches many files."""

NOISY: Final = 10.0
"""Seconds of changes without such a rest after which somebody should know."""

_INSIDE: Final = (
    Mask.MODIFY | Mask.CLOSE_WRITE | Mask.ATTRIB | Mask.CREATE | Mask.DELETE | Mask.MOVE | Mask.DELETE_SELF
    | Mask.MOVE_SELF | Mask.ONLYDIR
)  # fmt: skip
_ABOVE: Final = Mask.CREATE | Mask.MOVED_TO | Mask.ONLYDIR
_GONE: Final = frozenset({errno.ENOENT, errno.ENOTDIR})


class WatchedFolder:
    """Hear of changes in a folder, of its going and of its coming."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._inotify = Inotify(sync_timeout=0)
        self._ignored: Ignored | None = None
        self._above: dict[Path, str] = {}
        self._inside: dict[Path, PurePosixPath] = {}

    def begin(self) -> None:
        """Watch what is there now. It looks through the folder: not for the event loop. Raises OSError, ValueError."""
        for above in reversed(self._folder.parents):
            self._above[above] = self._folder.relative_to(above).parts[0]
            if not self._watch(above, _ABOVE):
                break
        self._watch_inside(self._folder, PurePosixPath())  # before its list of what is ignored is read: it may be wrong
        if not self._folder.is_dir():
            raise FileNotFoundError(errno.ENOENT, "it is no folder", str(self._folder))
        self._ignored = Ignored(self._folder)
        for here, folder, _ in walk(self._folder, self._ignored):
            self._watch_inside(folder, here)

    def close(self) -> None:
        """Hear of nothing more."""
        self._inotify.close()

    async def changed(self) -> None:
        """Return when something has changed."""
        while not self._matters(await self._inotify.get()):
            pass

    def has_changed(self) -> bool:
        """Say whether something has changed and was not told of yet."""
        while (event := self._inotify.sync_get()) is not None:
            if self._matters(event):
                return True
        return False

    async def settled(self) -> bool:
        """Return when nothing has changed for a moment; False if that does not come to be."""
        loop = asyncio.get_running_loop()
        until = loop.time() + NOISY
        while loop.time() < until:
            try:
                async with asyncio.timeout(QUIET):  # unlike wait_for of Python 3.11 it never swallows a cancellation
                    await self.changed()
            except TimeoutError:
                return True
        return False

    def _watch_inside(self, folder: Path, here: PurePosixPath) -> None:
        self._inside[folder] = here
        self._watch(folder, _INSIDE)

    def _watch(self, folder: Path, mask: Mask) -> bool:
        """Watch a folder; say whether it is there. One above that may not be read is passed over."""
        try:
            self._inotify.add_watch(folder, mask)
        except OSError as error:
            if error.errno in _GONE:  # the folder above tells of its coming back
                return False
            if mask is not _ABOVE or error.errno != errno.EACCES:
                raise
        return True

    def _matters(self, event: Event) -> bool:
        """Say whether an event is about the folder or something that is packed of it."""
        path = None if event.watch is None else event.watch.path
        if path is None or event.name is None:
            return not event.mask & Mask.IGNORED
        name = str(event.name)
        if path in self._inside:
            if name == IGNORE_FILE or self._ignored is None:
                return True
            return not self._ignored.matches(self._inside[path] / name, is_folder=bool(event.mask & Mask.ISDIR))
        return self._above.get(path) == name


class WatchedFile(WatchedFolder):
    """Hear of changes in one file, and of nothing that lies beside it."""

    def begin(self) -> None:
        """Watch the file. Raises OSError."""
        self._watch(self._folder.parent, _INSIDE)

    def _matters(self, event: Event) -> bool:
        return event.name is not None and str(event.name) == self._folder.name
