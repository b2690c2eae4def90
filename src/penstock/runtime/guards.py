"""What keeps instances within their memory. A zygote has one guard for all of its instances.

The laws. `prepare` comes before the fork, `enter` in the child, `watch` after it in the zygote, `ended` when the process
was reaped or could not be forked. `look` is called when `wait` says so; it never blocks. This one limits nothing.
"""


class Guard:
    """Limit nothing."""

    def prepare(self, number: int) -> None:
        """Make what an instance needs before it is forked. Raises `OSError` if its limit cannot be set."""

    def enter(self, number: int) -> None:
        """Put this process, which is the new instance, under its limit. Raises `OSError` if that fails."""

    def watch(self, number: int, pid: int) -> None:
        """Begin to watch an instance."""

    def wait(self, now: float) -> "float | None":  # noqa: ARG002 - for those that look
        """Return in how many seconds to look at instances, None if there is nothing to look at."""
        return None

    def look(self, now: float) -> None:
        """Look at the instances for which it is time, and kill those that use more than they may."""

    def why(self, number: int) -> str:  # noqa: ARG002 - for those that have other reasons than memory
        """Return in a sentence why an instance was killed, "" if it was not, or if `ended` says it."""
        return ""

    def peak(self, number: int, pid: int, most: int) -> int:  # noqa: ARG002 - for those that know better
        """Return the most that an instance used, in bytes, before `ended`; `most` is the highest RSS of a process of it."""
        return most

    def ended(self, number: int, pid: int) -> "int | None":  # noqa: ARG002 - for those that watch
        """Forget an instance; return how many bytes it used if it was ended for that, None if it was not."""
        return None
