from collections.abc import Iterator
from itertools import count

import pytest
from tests.api.serving import Server

_numbers = count(1)


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One server for all tests that do not stop it; each uses names of its own."""
    running = Server(tmp_path_factory.mktemp("server"))
    running.deploy("echo")
    running.deploy("fails", timeout="5s")
    yield running
    running.close()


@pytest.fixture
def name() -> str:
    """A name that no other test uses."""
    return f"p{next(_numbers)}"


@pytest.fixture
def blocked(server: Server, name: str) -> str:
    """A pipeline in which tasks wait for ever."""
    server.make(name, "echo", paused=True)
    return name
