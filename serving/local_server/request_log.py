"""The local server's log on stderr: lines to read, or one JSON object a line."""

import json
import logging
import sys
from datetime import UTC, datetime

from serving.local_server.rest import Call

__all__ = ["FORMATS", "configure", "formatter", "log_request"]

FORMATS = ("text", "json")

_MAX_TARGET = 200

_logger = logging.getLogger(__name__)


def configure(style: str) -> None:
    """Send everything that is logged to stderr, in one of the `FORMATS`."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(formatter(style))
    logging.basicConfig(handlers=[handler], level=logging.WARNING)
    # Of this package everything from INFO on, of other packages only warnings.
    logging.getLogger("serving").setLevel(logging.INFO)


def formatter(style: str) -> logging.Formatter:
    """Return the formatter for one of the `FORMATS`."""
    return _Json() if style == "json" else _Text()


def log_request(call: Call, *, status: int, sent: int, seconds: float, error: str | None) -> None:
    """Log a request that has come to its end; the server's own failures as errors.

    Args:
      call: what became known of it.
      status: of the answer; 499 if the client did not wait for it.
      sent: bytes of the answer's body.
      seconds: from the request's head to the answer's end.
      error: what the client was told, if it was an error.
    """
    level = logging.ERROR if status in (500, 503, 504) else logging.INFO
    if not _logger.isEnabledFor(level):
        return
    target = call.target if len(call.target) <= _MAX_TARGET else call.target[:_MAX_TARGET] + "..."
    fields = {
        "id": call.id,
        "method": call.method,
        "path": target,
        "status": status,
        "milliseconds": round(1000 * seconds, 2),
        "received_bytes": call.received,
        "sent_bytes": sent,
        "model": call.model[:_MAX_TARGET] or None,
        "version": call.version,
        "rows": call.rows,
        "error": error and error[:_MAX_TARGET],
    }
    _logger.log(
        level,
        "%s %s: %d in %.1f ms%s",
        call.method,
        target,
        status,
        1000 * seconds,
        f": {error[:_MAX_TARGET]}" if error else "",
        extra={"request": fields},
    )


class _Text(logging.Formatter):
    def __init__(self):
        super().__init__("%(levelname)s: %(message)s")

    def formatMessage(self, record: logging.LogRecord) -> str:
        # A client's bytes must not end the line, nor steer a terminal.
        text = super().formatMessage(record)
        return text if text.isprintable() else text.encode("unicode_escape").decode()


class _Json(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        fields = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
        }
        if request := getattr(record, "request", None):
            fields |= {name: value for name, value in request.items() if value is not None}
        else:
            fields["message"] = record.getMessage()
        if record.exc_info:
            fields["traceback"] = self.formatException(record.exc_info)
        return json.dumps(fields)
