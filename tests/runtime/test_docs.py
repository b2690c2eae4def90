"""The page on handlers names everything that a handler has."""

from pathlib import Path

import penstock
from penstock.runtime import errors
from penstock.runtime.context import Context

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "handlers.md").read_text()


def test_every_attribute_of_the_context_is_documented() -> None:
    names = [name for name in vars(Context) if not name.startswith("_")]
    assert len(names) > 10
    assert [name for name in names if f"`context.{name}" not in PAGE] == []


def test_every_exception_is_documented_and_can_be_imported() -> None:
    names = [name for name, one in vars(errors).items() if isinstance(one, type) and issubclass(one, Exception)]
    assert [name for name in names if f"`penstock.{name}" not in PAGE] == []
    assert all(getattr(penstock, name) is getattr(errors, name) for name in names)
