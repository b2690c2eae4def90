"""Local functions: what `Client.map` runs without a deploy by hand.

The function is pickled once (cloudpickle) and deployed as a function of its own, so its zygote has loaded it, and what it
imports, before instances are forked. It is removed when its results have been read.
"""

import sys
import sysconfig
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Generator, Iterable, Iterator
from contextlib import aclosing, closing, suppress
from pathlib import Path
from threading import Lock
from types import ModuleType
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from penstock.client import local_code
from penstock.client.async_maps import AsyncMap
from penstock.client.bundle import zip_of
from penstock.client.errors import ApiError
from penstock.client.gathering import ENDS, Progress
from penstock.client.maps import Map
from penstock.client.results import ItemResult

if TYPE_CHECKING:
    from penstock.client.async_client import AsyncClient
    from penstock.client.client import Client

_PICKLING = Lock()
"""What cloudpickle pickles by value is one list for all threads."""

HANDLER = "local_function:handler"
_MAIN = "from local_code import load\n\nhandler = load(__file__, {python!r})\n"


def new_name() -> str:
    """Return a name for a function that is deployed for one map."""
    return f"local-{uuid4().hex[:12]}"


def bundle_of(function: Callable[[Any], Any]) -> bytes:
    """Return the code that runs a function. Raises TypeError if it cannot be pickled."""
    if not callable(function):
        raise TypeError(f"map wants a function and the items to call it with; {function!r:.80} cannot be called.")
    files = {
        "local_function.py": _MAIN.format(python=local_code.python_version()).encode(),
        "local_code.py": Path(local_code.__file__).read_bytes(),
        "function.pickle": _pickled(function),
    }
    return zip_of(files)


def wrapped(items: Iterable[Any]) -> Iterator[Any]:
    """Yield items as they are sent. Raises TypeError for one that cannot be pickled."""
    from cloudpickle import dumps  # noqa: PLC0415 - only those who need it wait for it

    for number, item in enumerate(items):
        try:
            yield local_code.wrap(item, dumps)
        except Exception as error:
            raise TypeError(f"Item {number} can neither be written as JSON nor pickled: {error}") from error


def _pickled(function: Callable[[Any], Any]) -> bytes:
    """Pickle a function, and with it what it uses of the program's own modules: the server has none of them."""
    import cloudpickle  # noqa: PLC0415 - only those who need it wait for it

    try:
        with _PICKLING:
            return _dumps(cloudpickle, function)
    except Exception as error:
        name = getattr(function, "__qualname__", repr(function))
        raise TypeError(
            f"The function '{name}' cannot be sent to the server, because it or something that it uses cannot be pickled: "
            f"{error}. Open files, connections and locks inside the function."
        ) from error


def _dumps(cloudpickle: Any, function: Callable[[Any], Any]) -> bytes:
    """Pickle a function; modules that the program itself has registered stay so."""
    registered = set(cloudpickle.list_registry_pickle_by_value())
    own = [module for module in _own_packages() if module.__name__ not in registered]
    for module in own:
        cloudpickle.register_pickle_by_value(module)
    try:
        return bytes(cloudpickle.dumps(function))
    finally:
        for module in own:
            cloudpickle.unregister_pickle_by_value(module)


def _own_packages() -> Iterator[ModuleType]:
    """Yield the modules and packages of the program itself: from where it lies or runs, and not installed."""
    installed = {Path(sysconfig.get_path(name)) for name in ("stdlib", "platstdlib", "purelib", "platlib")}
    here = {Path(sys.path[0] or ".").resolve(), Path.cwd()}
    for name, module in list(sys.modules.items()):
        if "." in name or name in {"__main__", "penstock"} or not isinstance(module, ModuleType):
            continue
        place = next(iter(getattr(module, "__path__", ())), getattr(module, "__file__", None))
        if place is None:
            continue
        folders = set(Path(place).resolve().parents)
        if folders & here and not folders & installed:
            yield module


class LocalMap(Map):
    """Read the results of a local function, once; then, or when the loop is left, nothing of it stays on the server."""

    def __init__(
        self,
        client: "Client",
        name: str,
        function: str,
        *,
        items: int,
        return_exceptions: bool,
        progress: Progress | None,
    ) -> None:
        super().__init__(client, name, items=items, return_exceptions=return_exceptions, progress=progress)
        self.function = function

    def __iter__(self) -> Iterator[Any]:
        """Yield the results in the order of the items."""
        with closing(self._to_the_end(self.results(progress=self._progress))) as found:
            yield from map(self._shown, found)

    def as_completed(self) -> Iterator[tuple[int, Any]]:
        """Yield (index of the item, result) as they end."""
        with closing(self._to_the_end(self.results(ENDS, progress=self._progress))) as results:
            for found in results:
                yield found.index, self._shown(found)

    def _shown(self, found: ItemResult) -> Any:
        shown = super()._shown(found)
        return local_code.unwrap(shown) if found.ok else shown

    def _to_the_end(self, results: Iterator[ItemResult]) -> Generator[ItemResult, None, None]:
        try:
            yield from results
        finally:
            self.close()

    def close(self) -> None:
        """Cancel what has not ended, and remove the function."""
        for step in (self.cancel, self._client.function(self.function).delete):
            with suppress(ApiError):  # it has ended, or is gone already
                step()


class AsyncLocalMap(AsyncMap):
    """Read the results of a local function, once: the mirror of `LocalMap`."""

    def __init__(
        self,
        client: "AsyncClient",
        name: str,
        function: str,
        *,
        items: int,
        return_exceptions: bool,
        progress: Progress | None,
    ) -> None:
        super().__init__(client, name, items=items, return_exceptions=return_exceptions, progress=progress)
        self.function = function

    async def __aiter__(self) -> AsyncIterator[Any]:
        """Yield the results in the order of the items."""
        async with aclosing(self._to_the_end(self.results(progress=self._progress))) as results:
            async for found in results:
                yield self._shown(found)

    async def as_completed(self) -> AsyncIterator[tuple[int, Any]]:
        """Yield (index of the item, result) as they end."""
        async with aclosing(self._to_the_end(self.results(ENDS, progress=self._progress))) as results:
            async for found in results:
                yield found.index, self._shown(found)

    def _shown(self, found: ItemResult) -> Any:
        shown = super()._shown(found)
        return local_code.unwrap(shown) if found.ok else shown

    async def _to_the_end(self, results: AsyncIterator[ItemResult]) -> AsyncGenerator[ItemResult, None]:
        try:
            async for found in results:
                yield found
        finally:
            await self.close()

    async def close(self) -> None:
        """Cancel what has not ended, and remove the function."""
        for step in (self.cancel, self._client.function(self.function).delete):
            with suppress(ApiError):  # it has ended, or is gone already
                await step()
