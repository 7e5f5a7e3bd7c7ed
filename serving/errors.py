"""The errors of requests: TensorFlow's codes, and HTTP's statuses for them."""

__all__ = ["HTTP_STATUS", "RequestError"]

# As TensorFlow Serving maps them; what is not here is 500.
HTTP_STATUS = {
    "OK": 200,
    "CANCELLED": 499,
    "INVALID_ARGUMENT": 400,
    "DEADLINE_EXCEEDED": 504,
    "NOT_FOUND": 404,
    "ALREADY_EXISTS": 409,
    "PERMISSION_DENIED": 403,
    "RESOURCE_EXHAUSTED": 429,
    "FAILED_PRECONDITION": 400,
    "ABORTED": 409,
    "OUT_OF_RANGE": 400,
    "UNIMPLEMENTED": 501,
    "UNAVAILABLE": 503,
    "UNAUTHENTICATED": 401,
}
# The code of a status that several codes share, and of those that only HTTP has.
_CODES = {
    **{status: code for code, status in reversed(HTTP_STATUS.items())},
    405: "UNIMPLEMENTED",
    408: "DEADLINE_EXCEEDED",
    413: "RESOURCE_EXHAUSTED",
}


class RequestError(ValueError):
    """A request that gets an error instead of an answer.

    Attributes:
      status: the HTTP status, 400 unless said otherwise.
      message: what the client is told.
      code: the name of TensorFlow's (and gRPC's) code; by default the usual one for the status.
    """

    def __init__(self, message: str, status: int = 400, code: str | None = None):
        super().__init__(message)
        self.message = message
        self.status = status
        self.code = code or _CODES.get(status, "INTERNAL")
