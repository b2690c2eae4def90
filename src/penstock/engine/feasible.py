"""What the present state does not let come true: pins to versions that there are not, reservations that find no room.

All that a plan is refused for before anything is written, with every mistake at once. Long work yields often.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any, Final

from penstock.domain.ceilings import reservation_mistakes
from penstock.domain.errors import Conflict, InvalidSettings, Mistake
from penstock.domain.mistakes import did_you_mean, join, part_of
from penstock.engine.model import built_in_of

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator, Mapping

    from penstock.domain.plan import Plan, Step
    from penstock.domain.settings import Kind, Settings
    from penstock.engine.model import Plant

_ABOUT_CEILINGS: Final = frozenset({"reserved_concurrency", "scope"})
_SHOWN: Final = 5


class Feasible:
    """Look through plans. `known` are the settings of what exists, by kind and name."""

    def __init__(self, plant: Plant, known: Mapping[Kind, Mapping[str, Settings]]) -> None:
        self._plant = plant
        self._known = known

    def check(self, plan: Plan) -> Generator[None, None, None]:
        """Refuse what the present state does not let come true. Raises `InvalidSettings`."""
        mistakes = yield from self._check_versions(plan)
        mistakes += yield from self._check_hosts(plan)
        if mistakes:
            raise InvalidSettings(mistakes)
        yield from self._check_reservations(plan)

    # versions -----------------------------------------------------------------------------------------------------
    def _check_versions(self, plan: Plan) -> Generator[None, None, list[Mistake]]:
        """Return what is wrong with pins and aliases: they name versions, and aliases, that there are."""
        mistakes: list[Mistake] = []
        functions = {step.name: step.settings for step in plan.steps if step.kind == "function"}
        for step in plan.steps:
            yield
            if step.kind == "pipeline" and step.settings is not None and "version" in step.settings:
                mistakes += self._check_pin(step.name, step.settings, functions)
            elif step.kind == "function" and step.settings is not None:
                mistakes += self._check_aliases(step.name, step.settings)
                mistakes += yield from self._check_gone(step, plan)
        return mistakes

    def _check_pin(
        self, pipeline: str, settings: Settings, functions: Mapping[str, Settings | None]
    ) -> Iterator[Mistake]:
        name, pin = settings["function"], settings["version"]
        path = f"pipelines.{pipeline}.version"
        if isinstance(pin, int):
            versions = self._versions(name)
            if pin not in versions:
                yield Mistake(path, f"'{name}' has no version {pin}", _known(versions))
            return
        function = functions[name] if name in functions else self._known["function"].get(name)
        aliases = (function or {}).get("aliases", {})
        if pin not in aliases:
            yield Mistake(path, f"'{name}' has no alias '{pin}'", did_you_mean(pin, aliases) or _known(aliases))

    def _check_aliases(self, function: str, settings: Settings) -> Iterator[Mistake]:
        versions = self._versions(function)
        for alias, number in settings.get("aliases", {}).items():
            if number not in versions:
                path = join(f"functions.{function}.aliases", part_of(alias))
                yield Mistake(path, f"'{function}' has no version {number}", _known(versions))

    def _check_gone(self, step: Step, plan: Plan) -> Generator[None, None, list[Mistake]]:
        """Return what still uses aliases that a function no longer has."""
        before = self._known["function"].get(step.name, {}).get("aliases", {})
        gone = [alias for alias in before if alias not in (step.settings or {}).get("aliases", {})]
        if not gone:
            return []
        mistakes = []
        users: dict[str, list[str]] = {alias: [] for alias in gone}
        planned = {other.name for other in plan.steps if other.kind == "pipeline"}
        for name, pipe in list(self._plant.pipes.items()):
            yield
            pin = pipe.spec.version
            if pipe.spec.function != step.name or pin not in users or name in planned:
                continue
            if built_in_of(name) is None:
                users[str(pin)].append(f"pipelines.{name}")
            elif pipe.counts.waiting:
                users[str(pin)].append(f"{pipe.counts.waiting} tasks that wait for it")
        for alias, found in users.items():
            if found:
                some = ", ".join(found[:_SHOWN]) + (f" and {len(found) - _SHOWN} more" if len(found) > _SHOWN else "")
                path = join(f"functions.{step.name}.aliases", part_of(alias))
                mistakes.append(Mistake(path, f"would be gone, and is used by {some}", "change these first"))
        return mistakes

    def _versions(self, function: str) -> Mapping[int, Any]:
        found = self._plant.functions.get(function)
        return {} if found is None else found.versions

    # hosts ------------------------------------------------------------------------------------------------------------
    def _check_hosts(self, plan: Plan) -> Generator[None, None, list[Mistake]]:
        """Return what is wrong with host names: each leads to one function."""
        if not any(step.kind == "function" and (step.settings or {}).get("hosts") for step in plan.steps):
            return []
        after = dict(self._known["function"])
        for step in plan.steps:
            yield
            if step.kind == "function" and step.settings is not None:
                after[step.name] = step.settings
            elif step.kind == "function":
                after.pop(step.name, None)
        mistakes: list[Mistake] = []
        owners: dict[str, str] = {}
        for name, settings in after.items():
            yield
            for host in settings.get("hosts", ()):
                if owners.setdefault(host, name) != name:
                    path = f"functions.{name}.hosts"
                    mistakes.append(Mistake(path, f"{host} leads to '{owners[host]}' already", "take it away there"))
        return mistakes

    # ceilings -----------------------------------------------------------------------------------------------------
    def _check_reservations(self, plan: Plan) -> Generator[None, None, None]:
        """Refuse reservations that no ceiling has room for. Raises `InvalidSettings`."""
        if all(step.kind == "pipeline" for step in plan.steps):
            return
        after: dict[str, dict[str, Mapping[str, Any]]] = {"function": {}, "limit": {}}
        kinds: tuple[Kind, ...] = ("function", "limit")
        for kind in kinds:
            for name, settings in self._known[kind].items():
                yield
                if not _ABOUT_CEILINGS.isdisjoint(settings):
                    after[kind][name] = settings
        for step in plan.steps:
            yield
            if step.kind in after and step.settings is not None:
                after[step.kind][step.name] = step.settings
            elif step.kind in after:
                after[step.kind].pop(step.name, None)
        if mistakes := reservation_mistakes(after["function"], after["limit"]):
            raise InvalidSettings(mistakes)

    # removals -----------------------------------------------------------------------------------------------------
    def busy(self, plan: Plan, *, refuse: bool, drain: bool) -> set[str]:
        """Return the pipelines that a plan removes and that have tasks.

        Raises `Conflict` if there are some and they are to be refused, or to drain while what they use is removed as well.
        """
        pipes = self._plant.pipes
        busy = {
            step.name
            for step in plan.steps
            if step.kind == "pipeline" and step.action == "remove" and pipes[step.name].busy
        }
        if busy and refuse:
            left = Counter({name: pipes[name].counts.waiting for name in busy})
            some = ", ".join(f"'{name}' ({number} waiting)" for name, number in left.most_common(_SHOWN))
            raise Conflict(f"Pipelines still have tasks: {some}. Say whether to drain or to discard them.")
        if busy and drain and any(step.kind != "pipeline" and step.action == "remove" for step in plan.steps):
            raise Conflict(
                "A function or limit cannot go before the pipelines that use it have drained. Remove these first."
            )
        return busy


def _known(names: Mapping[Any, Any]) -> str:
    return f"known are {', '.join(map(str, names)) or 'none yet'}"
