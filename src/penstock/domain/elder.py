"""The elder: the one pipeline for which units are kept, because it needs several limits at once and has waited for long.

Limits that are busy have room one at a time. A pipeline that needs two of them would never find both open, and starve: so
what it was called for is kept until the other one opens. The laws: there is one elder at a time, so that nobody waits for
somebody who waits for him. And what is kept is unused meanwhile, so it is kept for `PART` of the time at most, and not at
all when the other limit is known to open too late.
"""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from penstock.domain.pipeline import Pipeline

AGE: Final = 0.5
"""Seconds of waiting after which a pipeline may become the elder."""

PART: Final = 0.2
"""The part of a pipeline's waiting for which units may be kept."""


class Elder:
    """Decide who it is, and until when."""

    __slots__ = ("pipeline", "until")

    def __init__(self) -> None:
        self.pipeline: Pipeline | None = None
        self.until = -inf

    def keeps(self, pipeline: Pipeline, opens_at: float, now: float) -> bool:
        """Say whether a unit is kept for a pipeline until another gate opens (inf: at a moment that nobody knows)."""
        if self.pipeline is not None:
            return self.pipeline is pipeline and now < self.until and (opens_at <= self.until or opens_at == inf)
        waited = now - pipeline.since
        until = now + PART * waited
        if waited < AGE or until < opens_at < inf or (opens_at == inf and now < pipeline.again):
            return False
        if opens_at == inf:
            pipeline.again = now + waited
        self.pipeline, self.until = pipeline, until
        return True

    def retire(self) -> None:
        """Let there be none."""
        self.pipeline, self.until = None, -inf
