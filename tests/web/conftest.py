from collections.abc import Iterator
from itertools import count
from pathlib import Path

import pytest
from tests.api.serving import Server
from tests.web.hosting import Host

_numbers = count(1)


@pytest.fixture(scope="session")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    """One server for all tests that do not stop it; each deploys apps under names of its own."""
    server = Server(Path(tmp_path_factory.mktemp("server")))
    yield Host(server)
    server.close()


@pytest.fixture
def name() -> str:
    """A name that no other test uses."""
    return f"app{next(_numbers)}"
