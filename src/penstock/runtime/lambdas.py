"""What handlers that were written for AWS Lambda expect around them, besides their two arguments.

The names and meanings are those of the "Lambda runtime environment" and of the "context object in Python" in the AWS
Lambda Developer Guide. What has no meaning here (an identity, a mobile client) is there and is None.
"""

import os
import sys
from typing import TYPE_CHECKING, Any, Final

from penstock.runtime.settings import Settings

if TYPE_CHECKING:
    import logging

ARN: Final = "arn:aws:lambda:local:000000000000:function:"
LOG_FORMAT: Final = "[%(levelname)s] %(name)s: %(message)s"


class Identity:
    """Be `context.identity`: nobody signs in with Amazon Cognito here."""

    __slots__ = ()
    cognito_identity_id = None
    cognito_identity_pool_id = None


IDENTITY: Final = Identity()


def set_variables(settings: Settings) -> None:
    """Set the environment variables that AWS Lambda sets and that mean something here, but for those that the user set."""
    module, _, name = settings.handler.partition(":")
    given = {
        "AWS_LAMBDA_FUNCTION_NAME": settings.function,
        "AWS_LAMBDA_FUNCTION_VERSION": str(settings.version),
        "AWS_LAMBDA_INITIALIZATION_TYPE": "on-demand",
        "AWS_LAMBDA_LOG_GROUP_NAME": log_group(settings.function),
        "AWS_LAMBDA_LOG_STREAM_NAME": log_stream(settings.version),
        "LAMBDA_TASK_ROOT": settings.bundle,
        "_HANDLER": f"{module}.{name}",
    }
    if settings.memory is not None:
        given["AWS_LAMBDA_FUNCTION_MEMORY_SIZE"] = str(settings.memory >> 20)
    for key, value in given.items():
        os.environ.setdefault(key, value)


def log_group(function: str) -> str:
    """Return the name that a function's log group has on AWS Lambda."""
    return f"/aws/lambda/{function}"


def log_stream(version: int) -> str:
    """Return a name for the log stream; one for all instances of a version, since a task's output is found by its task."""
    return f"[{version}]"


def keep_logs() -> None:
    """Let records of the `logging` module be output at every level that their loggers let pass, if nobody handles them.

    Python itself drops those below WARNING there; on AWS Lambda, `getLogger().setLevel("INFO")` is enough to see them.
    It is done by what logging falls back on, so that `basicConfig` works as everywhere. Only for code that has imported
    `logging`: the module is large.
    """
    logging = sys.modules.get("logging")
    if logging is not None:
        logging.lastResort = _fallback(logging)  # type: ignore[attr-defined]


def _fallback(module: Any) -> "logging.Handler":
    class Fallback(module.Handler):  # type: ignore[misc]
        """Write to what is standard error at that moment: it belongs to the task that logs."""

        def emit(self, record: "logging.LogRecord") -> None:
            try:
                sys.stderr.write(self.format(record) + "\n")
            except Exception:
                self.handleError(record)

    handler: logging.Handler = Fallback()
    handler.setFormatter(module.Formatter(LOG_FORMAT))
    return handler
