"""Nothing acknowledged is lost: kill -9 of the server and of instances, under load, at moments drawn from a seed."""

import contextlib
import random
import threading
from pathlib import Path

import psutil
import pytest
from tests.chaos.world import instances, marked, still_there, world


def kill_the_server(folder: Path, rounds: int, seed: int) -> None:
    rng = random.Random(seed)
    with world(folder) as here:
        client = here.start()
        here.setup(client)
        for _ in range(rounds):
            stop = threading.Event()
            sender = threading.Thread(target=here.send_until, args=(client, stop, random.Random(rng.random())))
            sender.start()
            stop.wait(rng.uniform(0.05, 1.0))
            below = here.kill()
            stop.set()
            sender.join()
            client.close()
            client = here.start()
            assert still_there(below) == []
        here.drain(client)
        here.account(client)
        assert len(here.acknowledged) > 10 * rounds
        client.close()
        here.stop()
        assert marked(here.data) == []


def kill_instances(folder: Path, rounds: int, seed: int) -> None:
    rng = random.Random(seed)
    with world(folder) as here:
        client = here.start()
        here.setup(client)
        stop = threading.Event()
        sender = threading.Thread(target=here.send_until, args=(client, stop, random.Random(seed)))
        sender.start()
        assert here.server is not None
        killed = 0
        while killed < rounds:
            stop.wait(rng.uniform(0.01, 0.2))
            alive = instances(here.server.pid)
            if alive:
                with contextlib.suppress(psutil.NoSuchProcess):
                    rng.choice(alive).kill()
                    killed += 1
        stop.set()
        sender.join()
        here.drain(client)
        here.account(client)
        client.close()
        here.stop()


def test_kill_the_server(tmp_path: Path) -> None:
    kill_the_server(tmp_path, rounds=3, seed=1)


def test_kill_instances(tmp_path: Path) -> None:
    kill_instances(tmp_path, rounds=10, seed=1)


@pytest.mark.long
def test_kill_the_server_long(tmp_path: Path) -> None:
    kill_the_server(tmp_path, rounds=20, seed=2)


@pytest.mark.long
def test_kill_instances_long(tmp_path: Path) -> None:
    kill_instances(tmp_path, rounds=200, seed=2)
