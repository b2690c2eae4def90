"""A bucket that speaks S3: what is in it, and what of it is packed.

S3 tells nobody of changes without more machinery, so it is asked: one listing (or one look at one object) at a time, which
has every object's ETag. obstore asks it: one wheel without dependencies, asynchronous, with addresses, signatures and
credentials of its own; boto3 brings 15 MB and a thread for each question.
"""

from __future__ import annotations

import asyncio
import hashlib
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from penstock.client.bundle import MOST_FILES, pack
from penstock.domain.errors import PenstockError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from penstock.domain.specs import SourceSpec

MOST_BYTES: Final = 256 << 20
AT_ONCE: Final = 8
"""Objects that are fetched at the same time."""

_PAGE: Final = 1000
_WORDS: Final = 300


class BucketError(PenstockError):
    """Report a bucket that cannot be read, or holds what cannot be code."""


class Bucket:
    """Read one object that is a zip, or all objects whose names begin with a prefix, as a folder."""

    def __init__(self, source: SourceSpec) -> None:
        name, _, key = source.url.removeprefix("s3://").partition("/")
        self._url = source.url
        self._is_zip = key.endswith(".zip")
        self._key = key if self._is_zip or not key else key.rstrip("/") + "/"
        self._store = _connect(name, source)

    async def look(self) -> dict[str, str]:
        """Return the ETags of what is there, by name. Raises `BucketError`."""
        try:
            return await (self._look_at_zip() if self._is_zip else self._list())
        except FileNotFoundError as error:
            raise BucketError(f"There is no {self._url}. It is taken when it comes.") from error
        except _failures() as error:
            raise BucketError(f"{self._url} cannot be read: {_brief(error)}") from error

    async def fetch(self, seen: Mapping[str, str]) -> bytes | None:
        """Return the code as a zip, None if it is not what was seen any more. Raises `BucketError`, `ValueError`."""
        try:
            if self._is_zip:
                body, tag = await self._get(self._key)
                return body if tag == seen[self._key] else None
            with tempfile.TemporaryDirectory(prefix="penstock-s3-") as folder:
                if not await self._fetch_into(Path(folder), seen):
                    return None
                return await asyncio.to_thread(pack, folder, MOST_BYTES)
        except FileNotFoundError:
            return None
        except _failures() as error:
            raise BucketError(f"{self._url} cannot be read: {_brief(error)}") from error

    async def _look_at_zip(self) -> dict[str, str]:
        found = await self._store.head_async(self._key)
        self._check_size(1, found["size"])
        return {self._key: str(found["e_tag"])}

    async def _list(self) -> dict[str, str]:
        tags: dict[str, str] = {}
        size = 0
        async for page in self._store.list(self._key or None, chunk_size=_PAGE):
            for each in page:
                tags[each["path"]] = str(each["e_tag"])
                size += each["size"]
            self._check_size(len(tags), size)
        if not tags:
            raise BucketError(f"There is nothing in {self._url}. It is taken when something comes.")
        return tags

    def _check_size(self, count: int, size: int) -> None:
        if count > MOST_FILES or size > MOST_BYTES:
            what = f"more than {MOST_FILES:,} objects" if count > MOST_FILES else f"over {MOST_BYTES >> 20} MiB"
            raise BucketError(f"{self._url} holds {what}. Keep what is no code elsewhere.")

    async def _fetch_into(self, folder: Path, seen: Mapping[str, str]) -> bool:
        """Write objects as files; return False if one has changed."""
        places = {key: self._place(folder, key) for key in seen if not key.endswith("/")}
        turns = asyncio.Semaphore(AT_ONCE)

        async def fetch(key: str, place: Path) -> bool:
            async with turns:
                body, tag = await self._get(key)
                await asyncio.to_thread(_write, place, body)
                return tag == seen[key]

        jobs = [asyncio.ensure_future(fetch(key, place)) for key, place in places.items()]
        try:
            return all(await asyncio.gather(*jobs))
        finally:
            for job in jobs:
                job.cancel()

    def _place(self, folder: Path, key: str) -> Path:
        """Return where an object is written. Raises `BucketError` for a name that would lead elsewhere."""
        parts = key.removeprefix(self._key).split("/")
        if any(part in {"", ".", ".."} or "\0" in part for part in parts):
            raise BucketError(f"{self._url} holds an object {key!r} whose name cannot be that of a file.")
        return folder.joinpath(*parts)

    async def _get(self, key: str) -> tuple[bytes, str]:
        answer = await self._store.get_async(key)
        return bytes(await answer.bytes_async()), str(answer.meta["e_tag"])


def fingerprint(seen: Mapping[str, str]) -> str:
    """Return a short text that is another one whenever something has changed."""
    return hashlib.sha256(repr(sorted(seen.items())).encode()).hexdigest()


def _connect(name: str, source: SourceSpec) -> Any:
    try:
        from obstore.store import S3Store  # noqa: PLC0415 - an extra, and only where it is wanted
    except ImportError as error:
        raise BucketError(
            "Sources in a bucket need the package obstore on the server. Install it with: pip install 'penstock[s3]'"
        ) from error
    given = {"region": source.region, "endpoint": source.endpoint, "access_key_id": source.access_key}
    options: dict[str, Any] = {
        key: value for key, value in {**given, "secret_access_key": source.secret_key}.items() if value
    }
    plain = (source.endpoint or "").startswith("http://")
    network: Any = {"timeout": "60s", "connect_timeout": "5s", "allow_http": plain}
    try:
        return S3Store(name, client_options=network, retry_config={"max_retries": 1}, **options)
    except _failures() as error:
        raise BucketError(f"{source.url} cannot be read: {_brief(error)}") from error


def _failures() -> tuple[type[Exception], ...]:
    try:
        from obstore.exceptions import BaseError  # noqa: PLC0415
    except ImportError:
        return ()
    return (BaseError,)


def _brief(error: Exception) -> str:
    """Return what went wrong, in one line."""
    said = str(error).partition("\n\nDebug source")[0]
    return " ".join(said.split())[:_WORDS].rstrip(".") + "."


def _write(place: Path, body: bytes) -> None:
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_bytes(body)
