"""Old versions and bundles go, and whatever can still run stays."""

import asyncio
from pathlib import Path
from typing import Any
from unittest import mock

from tests.api.serving import Server
from tests.api.test_live import call, deploy, make

from penstock.artifacts import bundles
from penstock.engine import archive


def tidy(server: Server) -> None:
    with mock.patch.object(archive, "KEEP", 2), mock.patch.object(bundles, "FRESH", -1.0):
        asyncio.run_coroutine_threadsafe(server.running.engine.pruner.tidy(), server.loop).result(30)


def numbers(server: Server, name: str) -> list[int]:
    versions: list[Any] = server.get(f"/v1/functions/{name}/versions").json()["versions"]
    return [one["number"] for one in versions]


def kept(data: Path) -> set[str]:
    return {path.name for path in (data / "bundles").glob("*.zip")}


def test_versions_that_nothing_can_run_go_with_their_bundles(tmp_path: Path) -> None:
    server = Server(tmp_path)
    try:
        make(server, "f", "one", "two", "three", "four", "five", "six", "seven")
        server.make("pinned", "f", version=2)
        server.ask("PATCH", "/v1/functions/f", {"aliases": {"stable": 3}})
        assert server.post("/v1/functions/f/rollback", {"version": 5}).status == 200
        assert len(kept(tmp_path)) == 7
        tidy(server)
        assert numbers(server, "f") == [2, 3, 4, 5, 6, 7]
        assert len(kept(tmp_path)) == 6
        assert server.get("/v1/status").json()["pruned"] == {"versions": 1, "bundles": 1}
        assert call(server, "f@stable") == "three"
        assert server.post("/v1/pipelines/pinned/invoke").json() == "two"
        assert server.post("/v1/functions/f/rollback").json()["version"] == 4
        server.ask("PATCH", "/v1/functions/f", {"aliases": None})
        assert server.ask("DELETE", "/v1/pipelines/pinned").status == 204
        assert server.put("/v1/pipelines/late", {"function": "f", "version": 1}).code == "invalid-settings"
        deploy(server, "f", "eight")
    finally:
        server.close()
    server = Server(tmp_path)
    try:
        tidy(server)
        assert numbers(server, "f") == [4, 7, 8]
        assert len(kept(tmp_path)) == 3
        assert call(server, "f") == "eight"
        deploy(server, "f", "one")
        assert (numbers(server, "f")[-1], call(server, "f")) == (9, "one")
    finally:
        server.close()


def test_a_bundle_stays_while_another_function_has_it(tmp_path: Path) -> None:
    server = Server(tmp_path)
    try:
        make(server, "f", "one")
        make(server, "g", "one", "two")
        assert server.ask("DELETE", "/v1/functions/f").status == 204
        tidy(server)
        assert len(kept(tmp_path)) == 2
        assert server.ask("DELETE", "/v1/functions/g").status == 204
        tidy(server)
        assert len(kept(tmp_path)) <= 1  # an instance may still run on one
    finally:
        server.close()
