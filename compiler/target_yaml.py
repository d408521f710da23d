"""Descriptor files as plain data, with the line of every key.

YAML is read as data only and within limits: no tags, no anchors or aliases, no duplicate keys, a bounded
size and depth. Nothing that a file holds can run code, or grow.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

from compiler.support.errors import TargetError

MAX_BYTES = 64 << 10
"""The longest descriptor that is read."""

MAX_DEPTH = 6
"""The deepest nesting that is read; the schema has three levels."""

KeyPath = tuple[str | int, ...]
"""Where a value stands: keys of mappings and indices of lists, from the top."""

_UNITS = {"KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30}
_ALLOWED = {
    f"tag:yaml.org,2002:{name}" for name in ("str", "int", "float", "bool", "null", "timestamp", "seq", "map")
}


def read_yaml(path: Path) -> tuple[dict[str, Any], dict[KeyPath, int]]:
    """Return the mapping in the file, and the line (from 1) where each value's key stands.

    A text such as ``32 KiB`` becomes a number of bytes.

    Raises:
        TargetError: the file cannot be read, or is not such a mapping.
    """
    text = _text(path)
    try:
        _check_events(text, path)
        node = yaml.compose(text, yaml.SafeLoader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f"line {mark.line + 1}" if mark else "its start"
        raise TargetError(f"expected YAML in '{path}', got an error at {where}: {error.problem}") from error
    except yaml.YAMLError as error:
        raise TargetError(f"expected YAML in '{path}': {str(error).splitlines()[0]}") from error
    if not isinstance(node, yaml.MappingNode):
        raise TargetError(f"expected a mapping of keys to values in '{path}', got {_kind(node)}")
    lines: dict[KeyPath, int] = {}
    data = _value(node, (), lines, path)
    assert isinstance(data, dict)
    return data, lines


def _text(path: Path) -> str:
    try:
        with path.open("rb") as file:
            raw = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise TargetError(f"cannot read the target descriptor '{path}': {error.strerror}") from error
    if len(raw) > MAX_BYTES:
        raise TargetError(f"expected a target descriptor of at most {MAX_BYTES} bytes, '{path}' is larger")
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise TargetError(f"expected UTF-8 text in '{path}', got another byte at {error.start}") from error


def _check_events(text: str, path: Path) -> None:
    """Refuse what could make the tree large or deep, before it is built."""
    depth = documents = 0
    for event in yaml.parse(text, yaml.SafeLoader):
        where = f"line {event.start_mark.line + 1}" if event.start_mark else "its start"
        if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None):
            raise TargetError(f"'{path}' {where}: anchors and aliases are not allowed in a descriptor")
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
            if depth > MAX_DEPTH:
                raise TargetError(f"'{path}' {where}: expected at most {MAX_DEPTH} nested levels")
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
        elif isinstance(event, yaml.DocumentStartEvent):
            documents += 1
            if documents > 1:
                raise TargetError(f"'{path}' {where}: expected one document, got a second one")


def _kind(node: yaml.Node | None) -> str:
    if isinstance(node, yaml.SequenceNode):
        return "a list"
    return "a mapping" if isinstance(node, yaml.MappingNode) else "no mapping"


def _value(node: yaml.Node, at: KeyPath, lines: dict[KeyPath, int], path: Path) -> Any:
    """Return the plain value of `node`, which stands at `at`; fill `lines`."""
    line = node.start_mark.line + 1
    lines.setdefault(at, line)
    if node.tag not in _ALLOWED:
        raise TargetError(f"'{path}' line {line}: the tag '{node.tag}' is not allowed in a descriptor")
    if isinstance(node, yaml.SequenceNode):
        return [_value(item, (*at, index), lines, path) for index, item in enumerate(node.value)]
    if isinstance(node, yaml.MappingNode):
        return _mapping(node, at, lines, path)
    return _scalar(node, path)


def _mapping(node: yaml.MappingNode, at: KeyPath, lines: dict[KeyPath, int], path: Path) -> dict[str, Any]:
    result: dict[str, Any] = {}
    for key_node, value_node in node.value:
        line = key_node.start_mark.line + 1
        key = key_node.value
        if not isinstance(key_node, yaml.ScalarNode) or not isinstance(key, str):
            raise TargetError(f"'{path}' line {line}: expected a word as key, got {_kind(key_node)}")
        if key in result:
            raise TargetError(f"'{path}' line {line}: the key '{key}' stands there twice")
        place = (*at, key)
        lines[place] = line
        result[key] = _value(value_node, place, lines, path)
    return result


def _scalar(node: yaml.Node, path: Path) -> Any:
    line = node.start_mark.line + 1
    if node.tag == "tag:yaml.org,2002:timestamp":
        return node.value
    try:
        value = yaml.constructor.SafeConstructor().construct_object(node)
    except (ValueError, TypeError, yaml.YAMLError, KeyError, OverflowError, IndexError) as error:
        raise TargetError(f"'{path}' line {line}: cannot read the value '{node.value[:40]}'") from error
    if isinstance(value, str) and (size := re.fullmatch(r"(\d{1,9})[ ]?([KMG]iB)", value)):
        return int(size[1]) * _UNITS[size[2]]
    return value
