"""The suite's handlers as the simulated compute knows them: scripted, on virtual time."""

import json
import random
from collections.abc import Callable, Coroutine
from math import inf
from pathlib import Path
from typing import Any

from penstock.compute.protocol import Compute, Ending
from penstock.sim.compute import Machine, SimCompute
from penstock.sim.ledger import Ledger
from penstock.sim.loop import run
from penstock.sim.script import Act, Call, Delays, Make, Script, Spread, Take, error

Answer = Callable[[Any, Call], Act]


def _body(result: Any) -> bytes:
    return json.dumps(result).encode()


def _raises(kind: str) -> Answer:
    return lambda event, _call: Act(0.001, Ending.ERROR, error(kind, str(event)))


def _tell(_event: Any, call: Call) -> Act:
    made_from = call.blueprint
    told = {
        "function": made_from.function, "version": str(made_from.version), "memory": (made_from.memory or 0) >> 20,
        "task": f"{call.task:016x}", "request": f"{call.task:016x}", "attempt": call.number, "pipeline": call.pipeline,
        "params": json.loads(call.params), "left": call.timeout * 1000,
    }  # fmt: skip
    return Act(0.001, body=_body(told))


def _grow(event: Any, _call: Call) -> Act:
    return Act(0.001, body=_body(event // 5_000_000), needs=event)


def _spoil(_event: Any, call: Call) -> Act:
    params = json.loads(call.params)
    return Act(0.001, body=_body([params, {**params, "spoiled": True}]))


def _chatter(event: Any, _call: Call) -> Act:
    told = (("stdout", f"to stdout {event}\n"), ("stderr", f"to stderr {event}\n"), ("log", f"INFO to log {event}\n"))
    return Act(0.001, output=told)


def _lines(event: Any, _call: Call) -> Act:
    return Act(0.001, output=tuple(("stdout", f"{event} {number}\n") for number in range(5)))


ANSWERS: dict[str, Answer] = {
    "echo": lambda event, _call: Act(0.001, body=_body(event)),
    "pick": lambda event, call: _raises("ValueError")(event, call) if event == "bad" else Act(0.001, body=_body(event)),
    "fail": _raises("ValueError"),
    "leave": _raises("SystemExit"),
    "leave_async": _raises("KeyboardInterrupt"),
    "not_json": lambda _event, _call: Act(0.001, Ending.ERROR, error("TypeError", "a set is not JSON")),
    "throttle": lambda event, _call: Act(
        0.001, Ending.THROTTLED, error("Throttled", "later"), retry_after=event, limit="provider"
    ),
    "acquire": lambda event, _call: Act(0.001, body=_body("went on"), takes=(Take("provider", event),)),
    "hold": lambda _event, _call: Act(0.001, body=_body("held"), takes=(Take("database", hold=0.0),)),
    "invoke": lambda event, _call: Act(0.001, body=_body(["went on", event]), makes=(Make("other", _body(event)),)),
    "spend": lambda event, _call: Act(0.001, spends=event),
    "exit": lambda event, _call: Act(0.001, crash=event),
    "crash": lambda _event, _call: Act(0.001, crash=-11),
    "sleep": lambda event, _call: Act(event, grace=None),
    "sleep_async": lambda event, _call: Act(event),
    "stuck": lambda event, _call: Act(inf, grace=None, hogs=event),
    "hang": lambda _event, _call: Act(inf, grace=None),
    "hang_async": lambda _event, _call: Act(inf),
    "stubborn_async": lambda _event, _call: Act(inf, stays=_body("stayed")),
    "grow": _grow,
    "tell": _tell,
    "spoil_params_async": _spoil,
    "chatter": _chatter,
    "chatter_async": _lines,
}


def _behaviour(answer: Answer) -> Callable[[Call], Act]:
    def act(call: Call) -> Act:
        try:
            event = json.loads(call.payload) if call.payload else None
        except ValueError:
            return Act(0.0, Ending.ERROR, error("ValueError", "The payload is not JSON."))
        return answer(event, call)

    return act


class SimWorld:
    """Scripted instances on virtual time."""

    def make(self, _folder: Path, _bundle: Path) -> Compute:
        """Return a compute whose every bundle has the suite's handlers."""
        script = Script(
            delays=Delays(
                down=Spread(0.0, 0.0005),
                up=Spread(0.0, 0.002),
                start=Spread(0.001, 0.002),
                flush=Spread(0.0, 0.001),
                fork=Spread(0.001, 0.01),
                kill=Spread(0.0, 0.001),
                reap=Spread(0.0, 0.001),
            )
        )
        for name, answer in ANSWERS.items():
            script.add(f"handlers:{name}", _behaviour(answer))
            if f"{name}_async" not in ANSWERS:
                script.add(f"handlers:{name}_async", _behaviour(answer))
        return SimCompute(Machine(script, random.Random(1), Ledger()))

    def run(self, main: Coroutine[Any, Any, None]) -> None:
        """Run a coroutine to its end; virtual time starts before any real clock's present."""
        run(main, start=0.0)
