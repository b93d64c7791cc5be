"""The one door to YAML: its safe, unsurprising part, where every value knows its place.

Plain words mean what the YAML 1.2 core schema says, so `16:9`, `yes`, `1_000` and `2026-01-01` are text, and a number
with leading zeros is text too (`010` is somebody's product code, never 8). What can explode, overwrite or run something
is refused: anchors, aliases, merge keys, duplicate keys, tags, second documents, numbers that are not finite.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NoReturn

import yaml

from pipeline.kernel.errors import InputError, Mistake

MAX_CHARACTERS = 64 * 1024 * 1024
MAX_DEPTH = 50
MAX_VALUES = 3_000_000
MAX_DIGITS = 300
"""More digits than any number of ours has, and fewer than Python refuses to convert."""

Step = str | int
"""One step of a path: a name or a position."""
Plain = Any
"""Plain Python: None, bool, int, float, str, and lists and dicts of these."""

_NULLS = frozenset({"", "~", "null", "Null", "NULL"})
_BOOLS = {"true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False}
_INT = re.compile(r"[-+]?(0|[1-9][0-9]*)")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|(0|[1-9][0-9]*)(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_NOT_FINITE = re.compile(r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)")
_NUMBER_BEGINNINGS = frozenset("+-.0123456789")
_UNWANTED = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]")
_TAG_STR = "tag:yaml.org,2002:str"
_TAG_INT = "tag:yaml.org,2002:int"


class YamlProblem(InputError):  # noqa: N818 - it is a mistake of the file's, with its place
    """The text is not the YAML that is allowed here: what is wrong, at which line and column (both from 1)."""

    def __init__(self, file: str, message: str, line: int, column: int) -> None:
        self.mistake = Mistake(file, f"column {column}: {message}", line=line)
        self.message = message
        self.line = line
        self.column = column
        super().__init__(str(self.mistake))


@dataclass(frozen=True, slots=True)
class Node:
    """A value and where it stands.

    `value` is plain Python all the way down. `text` is a scalar as it was written (a price keeps every digit), None for
    a list or mapping. `children` are the nodes inside, by name or position; `line` and `column` count from 1.
    """

    value: Plain
    line: int
    column: int
    text: str | None
    children: Mapping[Step, Node]

    def at(self, *path: Step) -> Node:
        """The node at `path` (names and positions from here down).

        Raises:
            KeyError: there is none.
        """
        node = self
        for step in path:
            node = node.children[step]
        return node

    def place(self, *path: Step) -> tuple[int, int]:
        """Line and column of `path`, or of the nearest thing above it that is there: never an error."""
        node = self
        for step in path:
            if step not in node.children:
                break
            node = node.children[step]
        return node.line, node.column


_NO_CHILDREN: Mapping[Step, Node] = {}


def parse(text: str | bytes, file: str) -> Node:
    """Read one YAML document; an empty one is a node with the value None.

    `file` is its name, for messages.

    Raises:
        YamlProblem: for everything that is not allowed.
    """
    source = _decoded(text, file)
    unwanted = _UNWANTED.search(source)
    if unwanted:
        before = source[: unwanted.start()]
        line, column = before.count("\n") + 1, unwanted.start() - (before.rfind("\n") + 1) + 1
        raise YamlProblem(file, f"the character U+{ord(unwanted[0]):04X} is not allowed", line, column)
    try:
        return _Builder(file, _events(source)).document()
    except yaml.MarkedYAMLError as error:
        _raise_syntax(file, error)
    except (yaml.YAMLError, RecursionError) as error:
        raise YamlProblem(file, f"is not valid YAML: {str(error)[:200]}", 1, 1) from None


def _decoded(text: str | bytes, file: str) -> str:
    if len(text) > MAX_CHARACTERS:
        raise YamlProblem(file, f"is larger than {MAX_CHARACTERS // 2**20} MiB", 1, 1)
    if isinstance(text, str):
        return text.removeprefix("\ufeff")
    try:
        return text.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = text.count(b"\n", 0, error.start) + 1
        raise YamlProblem(file, "is not UTF-8 text", line, 1) from None


def _events(source: str) -> Iterator[yaml.Event]:
    """libyaml's events, or those of the Python parser (ten times slower) where it is missing."""
    loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    reader = loader(source)  # asked for nothing but events: it never makes an object
    while not isinstance(event := reader.get_event(), yaml.StreamEndEvent):
        yield event


def _raise_syntax(file: str, error: yaml.MarkedYAMLError) -> NoReturn:
    mark = error.problem_mark or error.context_mark
    line, column = (mark.line + 1, mark.column + 1) if mark else (1, 1)
    hint = ""
    if error.problem and "cannot start any token" in error.problem:
        hint = " (indent with spaces, not tabs; quote a text that begins with @, ` or %)"
    elif error.problem and "mapping values are not allowed" in error.problem:
        hint = ' (quote a text that has ": " in it)'
    raise YamlProblem(file, f"is not valid YAML: {error.problem or error.context}{hint}", line, column) from None


class _Builder:
    """Makes nodes of events. Its depth is bounded, so that it cannot run out of stack."""

    def __init__(self, file: str, events: Iterator[yaml.Event]) -> None:
        self.file = file
        self.events = events
        self.values = 0

    def document(self) -> Node:
        root = Node(None, 1, 1, "", _NO_CHILDREN)
        documents = 0
        for event in self.events:
            if isinstance(event, yaml.DocumentStartEvent):
                documents += 1
                if documents > 1:
                    self.refuse(event, "a second document begins here; one file is one document")
                root = self.node(next(self.events), 1)
        return root

    def refuse(self, event: yaml.Event, message: str) -> NoReturn:
        line, column = _position(event)
        raise YamlProblem(self.file, message, line, column)

    def node(self, event: yaml.Event, depth: int) -> Node:
        self.values += 1
        if self.values > MAX_VALUES:
            self.refuse(event, f"has more than {MAX_VALUES:,} values; split it, or use CSV or JSONL")
        if depth > MAX_DEPTH:
            self.refuse(event, f"is nested more than {MAX_DEPTH} levels deep")
        if isinstance(event, yaml.AliasEvent):
            self.refuse(event, "aliases (*name) are not allowed; write the value out, or quote a text with a *")
        if getattr(event, "anchor", None) is not None:
            self.refuse(event, "anchors (&name) are not allowed; write the value out, or quote a text with a &")
        if isinstance(event, yaml.ScalarEvent):
            return self.scalar(event)
        if getattr(event, "tag", None) is not None:
            self.refuse_tag(event)
        build = self.mapping if isinstance(event, yaml.MappingStartEvent) else self.sequence
        return build(event, depth)

    def refuse_tag(self, event: yaml.Event) -> NoReturn:
        tag = str(getattr(event, "tag", ""))[:60].replace("tag:yaml.org,2002:", "!!")
        self.refuse(event, f"the tag {tag} is not allowed; only plain values are (quote a text with a !)")

    def sequence(self, start: yaml.Event, depth: int) -> Node:
        nodes: list[Node] = []
        while not isinstance(event := next(self.events), yaml.SequenceEndEvent):
            nodes.append(self.node(event, depth + 1))
        line, column = _position(start)
        return Node([node.value for node in nodes], line, column, None, dict(enumerate(nodes)))

    def mapping(self, start: yaml.Event, depth: int) -> Node:
        nodes: dict[Step, Node] = {}
        while not isinstance(event := next(self.events), yaml.MappingEndEvent):
            name = self.name(event, depth)
            if name in nodes:
                first = nodes[name].line
                self.refuse(event, f"`{name}` is given twice (first near line {first}); keep one of them")
            nodes[name] = self.node(next(self.events), depth + 1)
        line, column = _position(start)
        return Node({name: node.value for name, node in nodes.items()}, line, column, None, nodes)

    def name(self, event: yaml.Event, depth: int) -> str:
        if isinstance(event, yaml.MappingStartEvent | yaml.SequenceStartEvent):
            self.refuse(event, "a name is expected here, not a list or mapping; quote a text that begins with { or [")
        node = self.node(event, depth + 1)
        if isinstance(event, yaml.ScalarEvent) and event.implicit[0] and node.text == "<<":
            self.refuse(event, "merge keys (<<) are not allowed; write the values out")
        if not isinstance(node.value, str):
            self.refuse(event, f'names are text; write "{(node.text or "")[:40]}" in quotes')
        return node.value

    def scalar(self, event: yaml.ScalarEvent) -> Node:
        text: str = event.value
        if _UNWANTED.search(text):
            self.refuse(event, "the text has a control character in it")
        line, column = _position(event)
        return Node(self.resolve(event, text), line, column, text, _NO_CHILDREN)

    def resolve(self, event: yaml.ScalarEvent, text: str) -> str | int | float | bool | None:
        if event.tag is not None:
            if event.tag == _TAG_STR:
                return text
            if event.tag != _TAG_INT:
                self.refuse_tag(event)
            if not _INT.fullmatch(text):
                self.refuse(event, f"{text[:40]!r} is not a whole number")
        elif not event.implicit[0]:
            return text
        if text in _NULLS:
            return None
        if text in _BOOLS:
            return _BOOLS[text]
        return self.number(event, text) if text[0] in _NUMBER_BEGINNINGS else text

    def number(self, event: yaml.ScalarEvent, text: str) -> str | int | float:
        if _NOT_FINITE.fullmatch(text):
            self.refuse(event, f"{text} is not a finite number; quote it if it is meant as text")
        whole = _INT.fullmatch(text)
        if not whole and not _FLOAT.fullmatch(text):
            return text
        if len(text) > MAX_DIGITS:
            self.refuse(event, f"a number has more than {MAX_DIGITS} digits; quote it if it is meant as text")
        if whole:
            return int(text)
        if not math.isfinite(value := float(text)):
            self.refuse(event, f"{text[:40]} is not a finite number; quote it if it is meant as text")
        return value


def _position(event: yaml.Event) -> tuple[int, int]:
    mark = event.start_mark
    return (mark.line + 1, mark.column + 1) if mark else (1, 1)
