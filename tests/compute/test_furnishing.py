"""Instances whose environment is gone when they are launched."""

import asyncio
from pathlib import Path

import pytest
from tests.conformance.compute_world import Heard, blueprint, result_of, run_of

from penstock.compute.local import LocalCompute
from penstock.compute.protocol import Code, ImportFailed, InstallFailed

CODE = """
import sys

def prefix(event, context):
    return sys.prefix
"""


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    folder = tmp_path / "bundle"
    folder.mkdir()
    (folder / "handlers.py").write_text(CODE)
    (folder / "requirements.txt").write_text("six==1.16.0\n")
    return folder


def test_an_instance_starts_when_its_environment_is_there_again(tmp_path: Path, bundle: Path) -> None:
    async def main() -> None:
        heard, compute = Heard(), LocalCompute(tmp_path / "compute", lambda _: bundle)
        await compute.open(heard)
        try:
            instance = compute.launch(blueprint("prefix"))
            instance.run([run_of(1)])
            (end,) = await heard.end_of(1)
            found = await compute.environments([Code("bundle")])
            assert Path(result_of(end)).name == found[Code("bundle")].digest
        finally:
            await compute.close()
        assert heard.exits.keys() == {instance.id}

    asyncio.run(main())


def test_an_instance_that_is_killed_before_its_environment_is_there_is_gone_once(tmp_path: Path, bundle: Path) -> None:
    async def main() -> None:
        heard, compute = Heard(), LocalCompute(tmp_path / "compute", lambda _: bundle)
        await compute.open(heard)
        at_once, later = (compute.launch(blueprint("prefix")) for _ in range(2))
        at_once.kill()
        exit = await heard.exit_of(at_once)  # noqa: A001
        assert exit.killed
        later.kill()
        assert (await heard.exit_of(later)).killed
        await compute.close()
        assert all(len(exits) == 1 for exits in heard.exits.values())

    asyncio.run(main())


def test_an_instance_whose_packages_cannot_be_installed_says_so_and_is_gone(tmp_path: Path, bundle: Path) -> None:
    (bundle / "requirements.txt").write_text("six==1.15\nsix==1.16\n")

    async def main() -> None:
        heard, compute = Heard(), LocalCompute(tmp_path / "compute", lambda _: bundle)
        await compute.open(heard)
        exit = await heard.exit_of(compute.launch(blueprint("prefix")))  # noqa: A001
        assert not exit.killed
        assert "No solution found" in exit.detail
        with pytest.raises(InstallFailed, match="No solution found"):
            await compute.prepare(blueprint("prefix"), 30.0)
        await compute.close()

    asyncio.run(main())


def test_code_that_does_not_import_is_told_apart_from_packages_that_are_not_there(tmp_path: Path, bundle: Path) -> None:
    (bundle / "handlers.py").write_text("import six, certainly_not_there")

    async def main() -> None:
        compute = LocalCompute(tmp_path / "compute", lambda _: bundle)
        await compute.open(Heard())
        assert await compute.furnish(Code("bundle")) is not None
        with pytest.raises(ImportFailed, match="certainly_not_there") as caught:
            await compute.prepare(blueprint("prefix"), 30.0)
        assert not isinstance(caught.value, InstallFailed)
        await compute.close()

    asyncio.run(main())
