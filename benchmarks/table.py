"""What the programs printed, as a page of Markdown with the facts of the machine."""

import os
import platform
import sqlite3
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.harness import number, scratch_base

Line = Mapping[str, Any]

HEAD = """# Benchmarks

Written by `make bench`; each line comes from a program in `benchmarks/`, which says what it measures and how. Peers were
measured in the same run, on the same machine and disk.

"""


def page(lines: Sequence[Line]) -> str:
    """Return the whole page."""
    quick = "\n\n**A quick run: too short to quote.**" if any(line.get("quick") for line in lines) else ""
    return f"{HEAD}{machine()}{quick}\n" + "".join(_section(line) for line in lines)


def machine() -> str:
    """Return what the figures depend on, in one sentence, and the date."""
    gib = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return (
        f"{time.strftime('%Y-%m-%d', time.gmtime())}: {os.cpu_count()} cores ({_processor()}), {gib:.0f} GiB, "
        f"{platform.system()} {platform.release()}, {_file_system(scratch_base())}, "
        f"Python {platform.python_version()}, SQLite {sqlite3.sqlite_version}."
    )


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def _file_system(folder: str) -> str:
    """Return the type of the file system that holds a folder."""
    best, kind = "", "unknown file system"
    for line in Path("/proc/mounts").read_text().splitlines():
        _, mount, name, *_ = line.split()
        if f"{folder}/".startswith(mount.rstrip("/") + "/") and len(mount) >= len(best):
            best, kind = mount, name
    return kind


def _section(line: Line) -> str:
    head = f"\n## {line['benchmark']}\n\n"
    if "error" in line:
        return f"{head}Not measured: {line['error']}\n"
    rows = "".join(_row(figure) for figure in line["figures"])
    others = line.get("others", 0.0)
    busy = f"\nOther programs kept {others:g} cores busy meanwhile.\n" if others >= 0.1 else ""
    return f"{head}| what | figure | target | met | notes |\n| --- | ---: | ---: | --- | --- |\n{rows}{busy}"


def _row(figure: Line) -> str:
    met = {True: "yes", False: "**no**", None: ""}[figure.get("met")]
    unit, value = figure.get("unit", ""), figure["value"]
    shown = "" if value is None else f"{number(value)}{'' if unit.startswith('/') else ' '}{unit}".strip()
    target = f"{figure['target']}{'' if unit.startswith('/') else ' '}{unit}".strip() if "target" in figure else ""
    note = str(figure.get("note", "")).replace("|", "\\|").replace("\n", " ")
    return f"| {figure['what']} | {shown} | {target} | {met} | {note} |\n"
