"""Three customers, one function, and a limit each: what `make run` shows.

It starts Penstock and a small service with a quota per API key (service.py), deploys tasks.py, applies penstock.yaml, and
sends each customer's pipeline its work: real records, the characters of the Unicode Character Database that every Python
carries. Then it shows what flows, and ends with a verdict taken from the service's own log of arrivals.
"""

import argparse
import itertools
import json
import os
import signal
import subprocess
import sys
import time
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn
from urllib.request import urlopen

import yaml
from rich.console import Console
from rich.live import Live
from rich.table import Table

from penstock.client import Client, Pipeline, ServerUnreachable

HERE = Path(__file__).resolve().parent
TOLERANCE = 0.020
"""Seconds by which the service lets calls come closer together on their way to it: the quota's, and the verdict's."""
STARTS_WITHIN = 30.0

CATEGORIES = {"customer-a": "Sm", "customer-b": "Sc", "customer-c": "So"}
"""What each customer has: mathematical symbols, currency signs, other symbols."""


@dataclass(frozen=True)
class Verdict:
    """Say how one key was called: `most` is in any second, and `used` the share of the limit between first and last."""

    key: str
    limit: int
    calls: int
    most: int
    used: float
    refused: int

    @property
    def held(self) -> bool:
        """Return whether the limit was never exceeded, at the service."""
        return self.most <= self.limit and self.refused == 0


def records(category: str, count: int) -> list[dict[str, str]]:
    """Return characters of a category, with their names, as Unicode has them."""
    of_category = (chr(code) for code in range(sys.maxunicode) if unicodedata.category(chr(code)) == category)
    found = list(itertools.islice(of_category, count))
    return [{"character": each, "name": unicodedata.name(each, "")} for each in found]


def judge(key: str, limit: int, arrivals: Sequence[dict[str, Any]]) -> Verdict:
    """Return the verdict on one key from the service's log."""
    mine = [each for each in arrivals if each["key"] == key]
    times = sorted(each["at"] for each in mine)
    span = times[-1] - times[0] if len(times) > 1 else 0.0
    used = (len(times) - 1) / (span * limit) if span else 0.0
    refused = sum(each["refused"] for each in mine)
    return Verdict(key, limit, len(times), most_in_any_window(times, 1.0 - TOLERANCE), used, refused)


def most_in_any_window(times: Sequence[float], period: float) -> int:
    """Return how many of sorted moments the fullest half-open window of a period holds."""
    most = first = 0
    for last, moment in enumerate(times):
        while moment - times[first] >= period:
            first += 1
        most = max(most, last - first + 1)
    return most


def log_of(service: str) -> list[dict[str, Any]]:
    """Return the service's log of arrivals."""
    with urlopen(f"{service}/log") as response:
        arrivals: list[dict[str, Any]] = json.load(response)["arrivals"]
    return arrivals


@contextmanager
def running(command: list[str], **options: Any) -> Iterator[subprocess.Popen[str]]:
    """Run a process, and end it in the end."""
    process = subprocess.Popen(command, text=True, **options)
    try:
        yield process
    finally:
        if process.poll() is None:
            process.terminate()
        try:
            process.wait(STARTS_WITHIN)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        if process.stdout:
            process.stdout.close()


def start_service(stack: ExitStack, quotas: dict[str, int]) -> str:
    """Start the service on a free port and return its URL."""
    words = [f"--quota={key}={per_second}" for key, per_second in quotas.items()]
    command = [sys.executable, str(HERE / "service.py"), "--port=0", *words]
    process = stack.enter_context(running(command, stdout=subprocess.PIPE))
    assert process.stdout is not None
    url = process.stdout.readline().strip()
    if not url:
        raise SystemExit("The example's service did not start.")
    until(lambda: answers(f"{url}/log"), f"{url} does not answer")
    return url


def start_penstock(stack: ExitStack, data: Path, port: int) -> Client:
    """Start Penstock on a data directory and return a client of it."""
    data.mkdir(parents=True, exist_ok=True)
    log = stack.enter_context((data / "server.log").open("w+"))
    command = [sys.executable, "-m", "penstock.cli.main", "up", f"--data={data}", f"--port={port}"]
    process = stack.enter_context(running(command, stdout=log, stderr=subprocess.STDOUT))

    def ready() -> bool:
        if process.poll() is not None:
            log.seek(0)
            raise SystemExit(f"Penstock did not start:\n{log.read()}")
        try:
            written = json.loads((data / "server.json").read_text())
            return bool(written["pid"] == process.pid) and answers(f"{written['url']}/readyz")
        except (OSError, ValueError, KeyError):
            return False

    until(ready, f"Penstock does not answer; see {log.name}")
    return stack.enter_context(Client(data=data))


def answers(url: str) -> bool:
    """Return whether a URL answers."""
    try:
        with urlopen(url):
            return True
    except OSError:
        return False


def until(condition: Callable[[], bool], otherwise: str) -> None:
    """Wait for a condition, and give up after a while."""
    end = time.monotonic() + STARTS_WITHIN
    while not condition():
        if time.monotonic() > end:
            raise SystemExit(f"{otherwise}.")
        time.sleep(0.05)


def watch(console: Console, client: Client, names: Sequence[str], service: str, waiting_for: Sequence[str]) -> None:
    """Show what flows until every task has ended: a table that lives on a terminal, else a line a second."""
    remaining = list(waiting_for)
    with Live(console=console, auto_refresh=False, transient=True) as live:
        while remaining:
            pipelines = [client.pipeline(name).show() for name in names]
            arrivals = log_of(service)
            if console.is_terminal:
                live.update(flow(pipelines, arrivals), refresh=True)
            else:
                counts = ", ".join(
                    f"{each.name} {queued(each)} waiting {each.counts['done']} done" for each in pipelines
                )
                console.print(f"{counts}; the service saw {len(arrivals)} calls.")
            time.sleep(0.2 if console.is_terminal else 1.0)
            while remaining and client.task(remaining[0]).ended:
                remaining.pop(0)


def queued(pipeline: Pipeline) -> int:
    """Return how many tasks of a pipeline wait."""
    return pipeline.counts.get("queued", 0) + pipeline.counts.get("delayed", 0)


def flow(pipelines: Sequence[Pipeline], arrivals: Sequence[dict[str, Any]]) -> Table:
    """Return a table of what flows now."""
    table = Table(
        "pipeline", "limit", "waiting", "running", "done", "progress", "waits for", title="Penstock", box=None
    )
    for each in pipelines:
        waiting, running_now, done = queued(each), each.counts.get("running", 0), each.counts.get("done", 0)
        share = done / max(1, waiting + running_now + done)
        bar = "█" * round(share * 24)
        table.add_row(
            each.name,
            each.settings["rate"]["rate"],
            str(waiting),
            str(running_now),
            str(done),
            f"{bar:░<24}",
            each.waits_for or "",
        )
    table.caption = (
        f"The service has seen {len(arrivals)} calls and refused {sum(each['refused'] for each in arrivals)}."
    )
    return table


def show_verdicts(console: Console, verdicts: Sequence[Verdict]) -> None:
    """Print the verdicts as a table."""
    columns = ("API key", "limit", "calls", "most in 1 s", "limit used", "429s", "")
    table = Table(*columns, title="The verdict, from the service's own log of arrivals", title_justify="left", box=None)
    for each in verdicts:
        word = "[green]held[/green]" if each.held else "[red]exceeded[/red]"
        cells = (f"{each.limit}/s", str(each.calls), str(each.most), f"{each.used:.0%}", str(each.refused))
        table.add_row(each.key, *cells, word)
    console.print(table, soft_wrap=False)


def demonstrate(console: Console, options: argparse.Namespace, stack: ExitStack) -> bool:
    """Run the three customers; return whether every limit held."""
    config = yaml.safe_load((HERE / "penstock.yaml").read_text())
    pipelines = config["pipelines"]
    keys = {name: each["params"]["api_key"]["secret"] for name, each in pipelines.items()}
    limits = {name: int(each["rate"]["rate"].removesuffix("/s")) for name, each in pipelines.items()}
    service = start_service(stack, {keys[name]: limits[name] for name in pipelines})
    client = start_penstock(stack, options.data, options.port)
    console.print(f"Penstock runs at {client.url}, and a service with a quota per API key at {service}.")

    for each in pipelines.values():
        each["params"]["url"] = service
    client.function("call_api").deploy(HERE / "tasks.py", **config["functions"]["call_api"])
    client.apply(config)
    sent: list[str] = []
    for name, limit in limits.items():
        work = records(CATEGORIES[name], limit * options.seconds)
        sent += client.pipeline(name).send_many(work)
        console.print(
            f"Sent {len(work)} characters ({work[0]['name'].lower()}, …) to {name}, whose limit is {limit}/s."
        )
    watch(console, client, list(pipelines), service, sent)

    arrivals = log_of(service)
    verdicts = [judge(keys[name], limits[name], arrivals) for name in pipelines]
    show_verdicts(console, verdicts)
    failed = [task for task in map(client.task, sent) if not task.ok]
    for task in failed[:5]:
        console.print(f"Task {task.id} ended as {task.outcome}: {task.error}")
    return not failed and all(each.held for each in verdicts)


def stay(console: Console, data: Path) -> None:
    """Say how to look around, and stay until Ctrl-C."""
    program = Path(sys.executable).with_name("penstock")
    command = min(os.path.relpath(program), str(program), key=len) + (
        "" if data == Path(".penstock") else f" --data {data}"
    )
    console.print("\nPenstock stays up. Look around from another terminal:")
    for words in (
        "ls",
        "show customer-a",
        "ls tasks -p customer-b -n 5",
        """send customer-a '{"character": "€"}' --wait""",
    ):
        console.print(f"  {command} {words}", markup=False)
    console.print("Ctrl-C stops it.")
    signal.pause()


def interrupt(*_: Any) -> NoReturn:
    """End as Ctrl-C does, so that nothing that was started is left behind."""
    raise KeyboardInterrupt


def main() -> int:
    """Run the demonstration."""
    parser = argparse.ArgumentParser(description="Three customers, one function, and a limit each.")
    parser.add_argument("--data", type=Path, default=Path(".penstock"), help="the data directory (default: .penstock)")
    parser.add_argument("--port", type=int, default=0, help="Penstock's port (default: a free one)")
    parser.add_argument("--seconds", type=int, default=18, help="how many seconds of work to send (default: 18)")
    parser.add_argument("--once", action="store_true", help="end after the verdict: 0 if every limit held, else 1")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, interrupt)
    console = Console(highlight=False, soft_wrap=True)
    try:
        with ExitStack() as stack:
            held = demonstrate(console, options, stack)
            if options.once:
                return 0 if held else 1
            stay(console, options.data)
    except KeyboardInterrupt:
        console.print("Stopped.")
    except ServerUnreachable as error:
        console.print(f"Penstock has gone: {error}")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
