"""The reference of the configuration: `python -m tfhuber.config [FILE]`.

Prints every key with its default, the values that it may have, and what it means. With a file, checks it
and prints the values that differ from the defaults.
"""

import argparse
import json
import shutil
import textwrap
from collections.abc import Iterator
from typing import Any

from tfhuber.config.schema import Config, load
from tfhuber.console.table import aligned

__all__ = ["flatten", "main", "reference"]

# Counts end here only so that no product of two overflows.
_ENDLESS = 2**31


def reference(width: int = 100) -> str:
    """Return every key of the configuration, by sections, as text of at most about `width` columns."""
    keys = list(_keys(Config.model_json_schema()))
    key_width = max(len(name) for name, _, _ in keys)
    lines, section = [], ""
    for name, field, about_section in keys:
        if "." in name and name.rpartition(".")[0] != section:
            section = name.rpartition(".")[0]
            lines += ["", *_wrapped(f"{section}: {about_section}", width, 0)]
        facts = _wrapped(f"{_allowed(field)}; {_default(field)}", width, key_width + 4)
        facts[0] = f"  {name:<{key_width}}  {facts[0].lstrip()}"
        lines += [*facts, *_wrapped(field["description"], width, key_width + 4)]
    return "\n".join(lines)


def flatten(values: dict, prefix: str = "") -> dict[str, Any]:
    """Return nested dicts as one, by dotted keys.

    >>> flatten({"train": {"epochs": 3}, "about": ""})
    {'train.epochs': 3, 'about': ''}
    """
    flat: dict[str, Any] = {}
    for key, value in values.items():
        inside = flatten(value, f"{prefix}{key}.") if isinstance(value, dict) else {}
        flat |= inside or {prefix + key: value}
    return flat


def _wrapped(text: str, width: int, indent: int) -> list[str]:
    return textwrap.wrap(
        text,
        width,
        initial_indent=" " * indent,
        subsequent_indent=" " * indent,
        break_on_hyphens=False,
    )


def _keys(schema: dict) -> Iterator[tuple[str, dict, str]]:
    """Yield the dotted name, the schema and the section's description of each key."""
    sections = {}
    for name, field in schema["properties"].items():
        if "$ref" in field:
            sections[name] = schema["$defs"][field["$ref"].rpartition("/")[2]]
        else:
            yield name, field, ""
    for section, inner in sections.items():
        for name, field in inner["properties"].items():
            yield f"{section}.{name}", field, inner["description"]


def _allowed(schema: dict) -> str:
    """Return in words what values a JSON schema lets pass."""
    if "anyOf" in schema:
        return " or ".join(map(_allowed, schema["anyOf"]))
    if "enum" in schema:
        return " | ".join(map(json.dumps, schema["enum"]))
    if "const" in schema:
        return json.dumps(schema["const"])
    if "prefixItems" in schema:
        return f"[{', '.join(map(_allowed, schema['prefixItems']))}]"
    if schema["type"] == "array":
        return f"list of {_allowed(schema['items'])}"
    words = {"boolean": "true | false", "integer": "whole number", "string": "text"}
    kind = words.get(schema["type"], schema["type"])
    bounds = ", ".join(_bounds(schema))
    return f"{kind} {bounds}" if bounds else kind


def _bounds(schema: dict) -> Iterator[str]:
    signs = {"minimum": ">=", "exclusiveMinimum": ">", "maximum": "<=", "exclusiveMaximum": "<"}
    for key, sign in signs.items():
        if schema.get(key, _ENDLESS) != _ENDLESS:
            yield f"{sign} {schema[key]:g}"
    if "multipleOf" in schema:
        yield f"in steps of {schema['multipleOf']:g}"


def _default(schema: dict) -> str:
    return f"default {json.dumps(schema['default'])}" if "default" in schema else "required"


def _changes(config: Config) -> str:
    """Return the values that differ from the defaults, as aligned text."""
    values = flatten(config.model_dump(mode="json", exclude={"about"}))
    fields = {name: field for name, field, _ in _keys(Config.model_json_schema())}
    rows = [
        (name, json.dumps(value), _default(fields[name]))
        for name, value in values.items()
        if "default" not in fields[name] or value != fields[name]["default"]
    ]
    return aligned(rows)


def main() -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(prog="python -m tfhuber.config", description=__doc__)
    parser.add_argument(
        "file", nargs="?", help="a configuration to check, such as configs/wflw.json"
    )
    arguments = parser.parse_args()
    if arguments.file is None:
        print(reference(min(100, shutil.get_terminal_size().columns)))
    else:
        print(_changes(load(arguments.file)))
    return 0
