"""Loggers that are bound to one task: `context.log`."""

import logging

from penstock.runtime.output import Capture, Output
from penstock.runtime.wire import LOG


class TaskLog(logging.LoggerAdapter):  # type: ignore[type-arg]  # it can have them from Python 3.11 on
    """Be a logger that can also be called with a text, as `context.log` can on AWS Lambda."""

    def __call__(self, message: object) -> None:
        """Log a text."""
        self.info("%s", message)


def logger_for(output: Output, capture: Capture) -> TaskLog:
    """Return a logger whose records are output of one execution, whoever uses it."""
    return TaskLog(_logger, {"penstock_output": output, "penstock_capture": capture})


class _Handler(logging.Handler):
    """Write a record as output of the task whose logger was used."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            text = self.format(record) + "\n"
            record.__dict__["penstock_output"].write(LOG, text, record.__dict__["penstock_capture"])
        except Exception:
            self.handleError(record)


def _make_logger() -> logging.Logger:
    logger = logging.Logger("penstock.task", logging.INFO)
    handler = _Handler()
    handler.setFormatter(logging.Formatter("%(levelname)s %(message)s"))
    logger.addHandler(handler)
    return logger


_logger = _make_logger()
