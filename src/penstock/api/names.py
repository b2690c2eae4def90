"""Names in URLs, and what they stand for inside."""

from penstock.domain.errors import NotFound
from penstock.domain.task import id_of
from penstock.engine.model import DIRECT, direct, mapped


def pipeline_of(kind: str, name: str) -> str:
    """Return the pipeline that calls to a function or a pipeline go through. Raises `NotFound` for names that are ours."""
    if name.startswith(DIRECT):
        raise NotFound(kind.removesuffix("s"), name)
    return direct(name) if kind == "functions" else name


def mapped_of(kind: str, name: str) -> str:
    """Return the pipeline that maps of a function or through a pipeline go through. Raises `NotFound` as `pipeline_of`."""
    pipeline = pipeline_of(kind, name)
    return mapped(name) if kind == "functions" else pipeline


def map_id_of(name: str) -> int:
    """Return the id that a map's name stands for. Raises `NotFound`."""
    map_id = id_of(name)
    if map_id is None:
        raise NotFound("map", name)
    return map_id


def task_id_of(name: str) -> int:
    """Return the id that a task's name stands for. Raises `NotFound`."""
    task_id = id_of(name)
    if task_id is None:
        raise NotFound("task", name)
    return task_id
