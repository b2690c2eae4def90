"""Plans as people read them: what is created, changed and removed, setting by setting."""

from collections.abc import Iterator, Mapping
from typing import Any

from rich.text import Text

from penstock.cli.output import brief, clean, out
from penstock.client.models import Plan, Step

_LOOKS = {"create": ("+", "green"), "change": ("~", "yellow"), "remove": ("-", "red")}


def show_plan(plan: Plan) -> None:
    """Print a plan, and its sum."""
    console = out()
    for step in plan.plan:
        for line in _lines(step):
            console.print(line)
    console.print(Text(_sum(plan), style="bold" if plan.plan else ""))


def _sum(plan: Plan) -> str:
    if not plan.plan:
        return f"Nothing to change: all of {plan.unchanged} are as they should be."
    counts = {action: sum(step.action == action for step in plan.plan) for action in _LOOKS}
    done = ("created", "changed", "removed") if plan.applied else ("to create", "to change", "to remove")
    said = [f"{count} {word}" for count, word in zip(counts.values(), done, strict=True) if count]
    return ", ".join(said) + (f", {plan.unchanged} unchanged." if plan.unchanged else ".")


def _lines(step: Step) -> Iterator[Text]:
    sign, color = _LOOKS.get(step.action, ("?", ""))
    yield Text(clean(f"{sign} {step.kind} {step.name}"), style=f"{color} bold")
    before, after = dict(flatten(step.before or {})), dict(flatten(step.after or {}))
    if step.action == "remove":
        return
    if before == after:
        yield Text("    ~ a secret, which is not shown", style="yellow")
    for path in sorted(before.keys() | after.keys()):
        if path not in before:
            yield Text(clean(f"    + {path}: {brief(after[path])}"), style="green")
        elif path not in after:
            yield Text(clean(f"    - {path}: {brief(before[path])}"), style="red")
        elif before[path] != after[path]:
            yield Text(clean(f"    ~ {path}: {brief(before[path])} → {brief(after[path])}"), style="yellow")


def flatten(settings: Mapping[str, Any], path: str = "") -> Iterator[tuple[str, Any]]:
    """Yield settings as dotted paths and plain values."""
    for name, value in settings.items():
        inner = f"{path}.{name}" if path else str(name)
        if isinstance(value, Mapping) and value:
            yield from flatten(value, inner)
        else:
            yield inner, value
