"""What functions-framework serves: its own kind of handler, which gets a Flask request."""

from typing import Any


def same(request: Any) -> Any:
    """Return what came in."""
    return request.get_json()
