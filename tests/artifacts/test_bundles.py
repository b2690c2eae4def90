"""Bundles: what goes in comes out, once, whole, and nowhere else."""

import asyncio
import hashlib
import io
import os
import stat
import struct
import threading
import zipfile
from pathlib import Path
from unittest import mock

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.artifacts import bundles as room
from penstock.artifacts.bundles import Bundles
from penstock.artifacts.unpack import MIB, Bounds
from penstock.domain.errors import BadRequest, DiskFull, NotFound, PenstockError, TooLarge

SMALL = Bounds(zipped=100_000, entries=20, unpacked=2 * MIB, ratio=100, free=10_000)


def zipped(*members: tuple[str, bytes], mode: int = 0o100644, method: int = zipfile.ZIP_DEFLATED) -> bytes:
    body = io.BytesIO()
    with zipfile.ZipFile(body, "w", method) as archive:
        for name, content in members:
            info = zipfile.ZipInfo(name)
            info.external_attr = mode << 16
            info.compress_type = method
            archive.writestr(info, content)
    return body.getvalue()


def linked(*links: tuple[str, str], files: tuple[tuple[str, bytes], ...] = ()) -> bytes:
    body = io.BytesIO()
    with zipfile.ZipFile(body, "w") as archive:
        for name, content in files:
            archive.writestr(name, content)
        for name, target in links:
            info = zipfile.ZipInfo(name)
            info.create_system = 3
            info.external_attr = 0o120777 << 16
            archive.writestr(info, target)
    return body.getvalue()


def add(bundles: Bundles, body: bytes) -> str:
    return asyncio.run(bundles.add(body))


def left(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir()) if directory.exists() else []


CODE = zipped(("tasks.py", b"def handler(event, context): ..."), ("lib/util.py", b"x = 1"), ("empty/", b""))


def test_a_bundle_is_stored_once_and_unpacked_beside_it(tmp_path: Path) -> None:
    bundles = Bundles(tmp_path / "bundles")
    digest = add(bundles, CODE)
    assert digest == hashlib.sha256(CODE).hexdigest() == add(bundles, CODE)
    assert left(tmp_path / "bundles") == [digest, f"{digest}.zip"]
    folder = bundles.path(digest)
    assert folder == tmp_path / "bundles" / digest
    assert (folder / "lib" / "util.py").read_bytes() == b"x = 1"
    assert (folder / "empty").is_dir()
    assert (tmp_path / "bundles" / f"{digest}.zip").read_bytes() == CODE


def test_what_is_unpacked_cannot_be_written(tmp_path: Path) -> None:
    bundles = Bundles(tmp_path)
    folder = bundles.path(add(bundles, zipped(("run.sh", b"#!/bin/sh"), ("d/x", b""), mode=0o100755)))
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in [folder, *folder.rglob("*")]}
    assert set(modes.values()) == {0o555}
    folder = bundles.path(add(bundles, CODE))
    assert stat.S_IMODE((folder / "tasks.py").stat().st_mode) == 0o444


def test_a_folder_that_is_gone_is_made_again(tmp_path: Path) -> None:
    bundles = Bundles(tmp_path)
    digest = add(bundles, CODE)
    room._erase(tmp_path / digest)
    assert (bundles.path(digest) / "tasks.py").exists()
    (tmp_path / f"{digest}.zip").unlink()
    assert add(bundles, CODE) == digest
    assert (tmp_path / f"{digest}.zip").exists()


def test_a_bundle_that_is_not_used_goes_unless_it_came_just_now(tmp_path: Path) -> None:
    bundles = Bundles(tmp_path)
    digest = add(bundles, CODE)
    assert asyncio.run(bundles.sweep([])) == 0
    with mock.patch.object(room, "FRESH", -1.0):
        assert asyncio.run(bundles.sweep([digest])) == 0
        assert (bundles.path(digest) / "tasks.py").exists()
        assert asyncio.run(bundles.sweep([])) == 1
        assert asyncio.run(bundles.sweep([])) == 0
    assert left(tmp_path) == []
    with pytest.raises(NotFound):
        bundles.path(digest)


@pytest.mark.parametrize("digest", ["", "..", "../" + "a" * 61, "A" * 64, "a" * 63, "a" * 64 + "\n", "/" + "a" * 63])
def test_what_is_no_digest_names_no_bundle(tmp_path: Path, digest: str) -> None:
    with pytest.raises(NotFound):
        Bundles(tmp_path).path(digest)


NAMES = [
    "/etc/passwd",
    "../up",
    "a/../../up",
    "a//b",
    "./a",
    "a/./b",
    "..",
    "C:\\x",
    "a\\..\\..\\x",
    "c:/x",
    "a\nb",
    "n" * 256,
]


@pytest.mark.parametrize("name", [*NAMES, "d/" * 600 + "x"])
def test_an_entry_that_could_land_elsewhere_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(BadRequest, match="entry"):
        add(Bundles(tmp_path / "in"), zipped(("ok.py", b""), (name, b"evil")))
    assert left(tmp_path / "in") == []
    assert left(tmp_path) in ([], ["in"])


@pytest.mark.parametrize(
    "body",
    [b"", b"no zip", CODE[:-30], CODE[: len(CODE) // 2], b"PK\x05\x06" + b"\0" * 17, zipped(("a", b""), ("a/b", b""))],
    ids=["nothing", "no zip", "cut", "half", "only an end", "file and folder"],
)
def test_what_is_no_zip_is_refused(tmp_path: Path, body: bytes) -> None:
    with pytest.raises(BadRequest):
        add(Bundles(tmp_path), body)
    assert left(tmp_path) == []


def test_entries_of_one_name_are_refused(tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match="Duplicate"):
        body = zipped(("a.py", b"1"), ("a.py", b"2"))
    with pytest.raises(BadRequest, match=r"two entries 'a\.py'"):
        add(Bundles(tmp_path), body)


@pytest.mark.parametrize("mode", [stat.S_IFIFO, stat.S_IFCHR, stat.S_IFBLK, stat.S_IFSOCK])
def test_devices_and_the_like_are_refused(tmp_path: Path, mode: int) -> None:
    with pytest.raises(BadRequest, match="neither a file nor a folder"):
        add(Bundles(tmp_path), zipped(("x", b""), mode=mode | 0o666))


def test_an_encrypted_entry_is_refused(tmp_path: Path) -> None:
    body = bytearray(CODE)
    for signature, flags in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        body[body.index(signature) + flags] |= 1
    with pytest.raises(BadRequest, match="encrypted"):
        add(Bundles(tmp_path), bytes(body))


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_unusual_compression_is_refused(tmp_path: Path, method: int) -> None:
    with pytest.raises(BadRequest, match="deflate"):
        add(Bundles(tmp_path), zipped(("a", b"x" * 100), method=method))


def test_damage_is_noticed(tmp_path: Path) -> None:
    body = bytearray(zipped(("a.py", os.urandom(1000)), method=zipfile.ZIP_STORED))
    body[500] ^= 0xFF
    with pytest.raises(BadRequest, match="no zip that can be read"):
        add(Bundles(tmp_path), bytes(body))
    assert left(tmp_path) == []


# bombs ----------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "body",
    [
        zipped(("a", os.urandom(100_001))),
        zipped(*[(f"f{n}", b"") for n in range(21)]),
        zipped(("zeros", b"\0" * (2 * MIB + 1))),
        zipped(("zeros", b"\0" * 500_000)),
    ],
    ids=["zip", "entries", "unpacked", "ratio"],
)
def test_what_is_over_a_bound_is_refused(tmp_path: Path, body: bytes) -> None:
    with pytest.raises(TooLarge):
        add(Bundles(tmp_path, SMALL), body)
    assert left(tmp_path) == []


def test_what_is_within_the_bounds_is_kept(tmp_path: Path) -> None:
    bundles = Bundles(tmp_path, SMALL)
    for body in (
        zipped(("zeros", b"\0" * 9_999)),
        zipped(("r", os.urandom(99_000))),
        zipped(*[(f"{n}", b"") for n in range(20)]),
    ):
        assert bundles.path(add(bundles, body)).is_dir()


def test_a_zip_that_lies_about_its_size_is_refused(tmp_path: Path) -> None:
    content = b"\0" * 1_900_000
    body = zipped(("zeros", content), ("noise", os.urandom(50_000)))
    honest = struct.pack("<L", len(content))
    assert body.count(honest) == 2
    with pytest.raises((BadRequest, TooLarge)):
        add(Bundles(tmp_path, SMALL), body.replace(honest, struct.pack("<L", 10)))
    assert left(tmp_path) == []


def test_entries_that_share_their_bytes_are_refused(tmp_path: Path) -> None:
    body = zipped(("a", os.urandom(5000)))
    start = body.index(b"PK\x01\x02")
    entry, end = body[start : body.index(b"PK\x05\x06")], bytearray(body[body.index(b"PK\x05\x06") :])
    entries = b"".join(entry.replace(b"a", bytes([ord("a") + n]), 1) for n in range(8))
    struct.pack_into("<HHLL", end, 8, 8, 8, len(entries), start)
    with pytest.raises(BadRequest, match="overlap"):
        add(Bundles(tmp_path), body[:start] + entries + bytes(end))


# links ----------------------------------------------------------------------------------------------------------------
def test_links_inside_a_bundle_work(tmp_path: Path) -> None:
    bundles = Bundles(tmp_path)
    body = linked(("d/link.py", "../real.py"), ("alias", "d"), files=(("real.py", b"real"), ("d/x", b"x")))
    folder = bundles.path(add(bundles, body))
    assert (folder / "d" / "link.py").read_bytes() == b"real"
    assert (folder / "alias" / "x").read_bytes() == b"x"


@pytest.mark.parametrize(
    "links",
    [
        [("a", "/etc/passwd")],
        [("a", "../outside")],
        [("d/a", "../../outside")],
        [("d/l", ".."), ("x", "d/l/../../etc")],
        [("a", "b"), ("b", "../..")],
        [("a", "")],
        [("a", "x" * 2000)],
    ],
)
def test_links_out_of_a_bundle_are_refused(tmp_path: Path, links: list[tuple[str, str]]) -> None:
    with pytest.raises(BadRequest, match="link"):
        add(Bundles(tmp_path / "in"), linked(*links, files=(("d/x", b""),)))
    assert left(tmp_path / "in") == []


def test_nothing_is_written_through_a_link(tmp_path: Path) -> None:
    (tmp_path / "outside").mkdir()
    body = linked(("d", str(tmp_path / "outside")), files=(("d/evil", b""),))
    with pytest.raises(BadRequest):
        add(Bundles(tmp_path / "in"), body)
    assert left(tmp_path / "outside") == []


# bad luck -------------------------------------------------------------------------------------------------------------
def test_what_an_earlier_server_left_unfinished_is_removed(tmp_path: Path) -> None:
    folder = tmp_path / ".unfinished-x" / "folder" / "d"
    folder.mkdir(parents=True)
    (folder / "file").write_bytes(b"")
    folder.chmod(0o555)
    (tmp_path / ".unfinished-file").write_bytes(b"")
    digest = add(Bundles(tmp_path), CODE)
    assert left(tmp_path) == [digest, f"{digest}.zip"]


def test_a_full_disk_keeps_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(room, "unpack", full)
    with pytest.raises(DiskFull):
        add(Bundles(tmp_path), CODE)
    assert left(tmp_path) == []


def test_many_who_unpack_one_bundle_at_once_get_one_folder(tmp_path: Path) -> None:
    bundles = Bundles(tmp_path)
    digest = add(bundles, CODE)
    room._erase(tmp_path / digest)
    found: list[Path] = []
    threads = [threading.Thread(target=lambda: found.append(bundles.path(digest))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [tmp_path / digest] * 8
    assert left(tmp_path) == [digest, f"{digest}.zip"]
    assert (found[0] / "tasks.py").exists()


@given(cut=st.integers(0, len(CODE)), noise=st.binary(max_size=8), at=st.integers(0, len(CODE) - 1))
@settings(max_examples=100)
def test_a_damaged_zip_is_refused_or_is_still_one(
    tmp_path_factory: pytest.TempPathFactory, cut: int, noise: bytes, at: int
) -> None:
    directory = tmp_path_factory.mktemp("damaged")
    body = (CODE[:at] + noise + CODE[at + len(noise) :])[cut:] if cut < 20 else CODE[:cut] + noise
    bundles = Bundles(directory / "in", SMALL)
    try:
        folder = bundles.path(add(bundles, body))
    except PenstockError:
        assert left(directory / "in") == []
    else:
        assert folder.is_dir()
    assert left(directory) in ([], ["in"])
