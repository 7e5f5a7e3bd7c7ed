"""What a reader makes of a directory: each entry with its labels, or the reject that it becomes."""

import json
from dataclasses import asdict, dataclass

from pipelines.errors import Unusable
from pipelines.readers.annotation import Entry, Labels, Reject
from pipelines.storage import Source


@dataclass
class Annotation:
    """An entry and its labels; both ones' fields are its own."""

    entry: Entry
    labels: Labels

    def __getattr__(self, name):
        return getattr(self.labels if name in Labels.__dataclass_fields__ else self.entry, name)


def read_all(reader, directory):
    """The reader's items, as workers get them: through JSON."""
    source = Source(str(directory))
    return [label(reader, source, entry) for entry in reader.entries(source)]


def label(reader, source, entry):
    entry = Entry(**json.loads(json.dumps(asdict(entry))))
    try:
        return Annotation(entry, reader.labels(entry, source))
    except Unusable as unusable:
        return Reject.of(entry, unusable)
