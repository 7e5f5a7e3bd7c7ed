"""Why an entry of a data set is left out."""

__all__ = ["Unusable"]


class Unusable(Exception):
    """An entry that cannot become an example: `reason` is a short code, `detail` is for a human."""

    def __init__(self, reason: str, detail: str):
        super().__init__(f"{reason}: {detail}")
        self.reason, self.detail = reason, detail
