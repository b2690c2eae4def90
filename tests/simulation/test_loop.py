"""The virtual loop: time jumps, exactly and in order; what has no place in virtual time is refused."""

import asyncio
import socket
import threading
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.sim.loop import Deadlock, Life, Livelock, RealWorld, Unhandled, VirtualLoop, run, virtual_loop


def test_a_year_passes_at_once() -> None:
    async def main() -> float:
        began = asyncio.get_running_loop().time()
        await asyncio.sleep(365 * 86_400)
        return asyncio.get_running_loop().time() - began

    assert run(main()) == 365 * 86_400


@given(st.lists(st.floats(min_value=0.0, max_value=1e6), min_size=1, max_size=30))
def test_timers_run_in_order_and_at_the_moment_that_was_asked_for(delays: list[float]) -> None:
    async def main() -> tuple[list[float], list[tuple[float, float]]]:
        loop = asyncio.get_running_loop()
        seen: list[tuple[float, float]] = []

        def note(asked: float) -> None:
            seen.append((asked, loop.time()))

        moments = [loop.time() + delay for delay in delays]
        for moment in moments:
            loop.call_at(moment, note, moment)
        await asyncio.sleep(max(delays) + 1)
        return moments, seen

    moments, seen = run(main(), start=0.1)
    assert sorted(asked for asked, _ in seen) == sorted(moments)
    assert [asked for asked, _ in seen] == sorted(moments)
    # A timer runs at its moment, or with one that is less than a nanosecond before it.
    assert all(asked == at or 0 < asked - at < 1e-9 for asked, at in seen)


def test_time_stands_still_while_there_is_work_and_moves_when_a_callback_is_slow() -> None:
    async def main() -> list[float]:
        loop = virtual_loop()
        before = loop.time()
        for _ in range(1000):
            await asyncio.sleep(0)
        assert loop.time() == before
        late: list[float] = []
        loop.call_later(1.0, lambda: late.append(loop.time() - before))
        loop.call_later(0.5, loop.block, 2.0)
        await asyncio.sleep(3)
        return late

    assert run(main()) == [2.5]


def test_everything_of_asyncio_that_needs_no_world_works() -> None:
    async def main() -> list[int]:
        queue = asyncio.Queue[int](1)

        async def produce() -> None:
            for number in range(5):
                await queue.put(number)
                await asyncio.sleep(0.1)

        async with asyncio.TaskGroup() as group:
            group.create_task(produce())
            got = [await queue.get() for _ in range(5)]
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(5):
                await asyncio.Event().wait()
        return got

    assert run(main()) == [0, 1, 2, 3, 4]


def test_a_deadlock_is_found_and_says_who_waits() -> None:
    async def waits_for_ever() -> None:
        await asyncio.Event().wait()

    with pytest.raises(Deadlock, match="waits_for_ever"):
        run(waits_for_ever())


def test_a_livelock_is_found() -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()

        def again() -> None:
            loop.call_soon(again)

        again()
        await asyncio.sleep(1)

    with pytest.raises(Livelock, match=r"went round 10[0-9] times"):
        run(main(), max_turns=100)


def test_threads_sockets_and_signals_are_refused() -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        with pytest.raises(RealWorld, match="run_in_executor"):
            await asyncio.to_thread(time.monotonic)
        with pytest.raises(RealWorld, match="create_connection"):
            await asyncio.open_connection("127.0.0.1", 1)
        with pytest.raises(RealWorld, match="subprocess_exec"):
            await asyncio.create_subprocess_exec("true")
        with pytest.raises(RealWorld, match="add_signal_handler"):
            loop.add_signal_handler(15, print)
        with socket.socket() as sock, pytest.raises(RealWorld, match="add_reader"):
            loop.add_reader(sock, print)

    run(main())


def test_a_call_from_another_thread_is_refused() -> None:
    refused: list[str] = []

    def call(loop: asyncio.AbstractEventLoop) -> None:
        try:
            loop.call_soon_threadsafe(print)
        except RealWorld as error:
            refused.append(str(error))

    async def main() -> None:
        thread = threading.Thread(target=call, args=(asyncio.get_running_loop(),))
        thread.start()
        thread.join()

    run(main())
    assert len(refused) == 1


def test_an_error_that_nobody_handled_fails_the_run() -> None:
    def fails() -> None:
        raise ValueError("lost")

    async def callback() -> None:
        asyncio.get_running_loop().call_soon(fails)
        await asyncio.sleep(1)

    async def forgotten() -> None:
        async def task() -> None:
            fails()

        kept.append(asyncio.create_task(task()))
        await asyncio.sleep(1)

    kept: list[asyncio.Task[None]] = []
    for main in (callback, forgotten):
        with pytest.raises(Unhandled) as caught:
            run(main())
        assert "lost" in caught.value.__notes__[0]


def test_a_killed_life_leaves_nothing_behind() -> None:
    async def main() -> list[str]:
        loop = virtual_loop()
        life = Life("server")
        seen: list[str] = []

        async def server() -> None:
            asyncio.get_running_loop().call_later(5, seen.append, "timer")
            helper = asyncio.create_task(asyncio.sleep(10))
            try:
                await asyncio.sleep(5)
                seen.append("slept")
            finally:
                await helper

        loop.spawn(life, server(), name="server")
        neighbour = asyncio.create_task(asyncio.sleep(20))
        await asyncio.sleep(1)
        await loop.kill(life)
        assert life.ended
        await neighbour
        return seen

    assert run(main()) == []


def test_a_life_that_refuses_to_end_is_reported() -> None:
    async def stubborn() -> None:
        while True:
            try:
                await asyncio.sleep(1)
            except asyncio.CancelledError:
                if released:
                    raise

    released: list[bool] = []

    async def main() -> None:
        life = Life("stubborn")
        virtual_loop().spawn(life, stubborn())
        await asyncio.sleep(0)
        with pytest.raises(RuntimeError, match="refuse to be cancelled"):
            await virtual_loop().kill(life)
        released.append(True)

    run(main())


def test_only_a_simulation_has_a_virtual_loop() -> None:
    async def main() -> None:
        with pytest.raises(TypeError, match="simulation only"):
            virtual_loop()

    asyncio.run(main())
    assert isinstance(run(_loop()), VirtualLoop)


async def _loop() -> VirtualLoop:
    return virtual_loop()
