"""A handler that waits for somebody else."""

import time


def wait(event: float, _: object) -> float:
    """Wait so many seconds."""
    time.sleep(event)
    return event
