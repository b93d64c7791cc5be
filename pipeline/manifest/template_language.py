"""The language of templates: the part of Jinja2 that is allowed, and each of its operations with its bound."""

from __future__ import annotations

import functools
import html
import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from pipeline.models.values import spelled

if TYPE_CHECKING:
    import jinja2

MAX_TEXT = 10_000
MAX_ITEMS = 100
MAX_NUMBER_BITS = 256
MAX_HTML = 1_000_000

_INLINE_TAG = re.compile(r"</?(?:a|abbr|b|em|font|i|mark|s|small|span|strong|sub|sup|u)\b[^<>]*>", re.IGNORECASE)
_TAG = re.compile("<[^<>]*>")


class BadTemplateError(ValueError):
    """The template cannot be rendered: one sentence for the user."""


# --- what is allowed ---

_STATEMENTS = frozenset({"Template", "Output", "TemplateData", "If", "For", "Assign"})
_EXPRESSIONS = frozenset(
    {"Name", "Const", "List", "Tuple", "Getattr", "Getitem", "Slice", "Filter", "Test", "Call", "CondExpr", "Compare"}
    | {"Operand", "And", "Or", "Not", "Neg", "Pos", "Add", "Sub", "Mul", "Div", "FloorDiv", "Mod", "Concat"}
)
_METHODS = frozenset({"upper", "lower", "title", "capitalize", "strip", "split", "startswith", "endswith"})
_LOOP = frozenset({"index", "index0", "first", "last", "length"})
_CONSTRUCTS = {
    "Pow": "`**`",
    "Block": "{% block %}",
    "Macro": "{% macro %}",
    "AssignBlock": "{% set %} with a body",
    "FilterBlock": "{% filter %}",
    "With": "{% with %}",
    "NSRef": "a namespace",
}


def check(node: Any, *, inside_loop: bool = False) -> None:
    """Refuse every construct that is not known to be bounded and repeatable, with a `BadTemplateError`."""
    kind = type(node).__name__
    if kind not in _STATEMENTS and kind not in _EXPRESSIONS:
        raise BadTemplateError(f"{_CONSTRUCTS.get(kind, kind.lower())} is not available in prompt templates")
    if kind == "For":
        if inside_loop or node.recursive:
            raise BadTemplateError("a {% for %} inside another is not available in prompt templates")
        inside_loop = True
    elif kind == "Call":
        _check_call(node)
    elif kind == "Getattr" and type(node.node).__name__ == "Name" and node.node.name == "row":
        raise BadTemplateError(f'write row["{node.attr}"] for a column')
    elif kind == "Getattr" and not _is_loop(node):
        raise BadTemplateError(f"`.{node.attr}` is not available in prompt templates")
    elif kind == "Filter" and node.name not in FILTERS:
        raise BadTemplateError(f"there is no filter `{node.name}` here; there are {', '.join(sorted(FILTERS))}")
    callee: Any = node.node if kind == "Call" and type(node.node).__name__ == "Getattr" else None
    for child in node.iter_child_nodes():
        # A method is allowed where it is called at once: printed, it would show its address.
        check(child.node if child is callee else child, inside_loop=inside_loop)


def _check_call(node: Any) -> None:
    callee = node.node
    is_range = type(callee).__name__ == "Name" and callee.name == "range"
    is_method = type(callee).__name__ == "Getattr" and callee.attr in _METHODS
    if not is_range and not is_method:
        raise BadTemplateError(f"only range() and {', '.join(sorted(_METHODS))} of a text can be called")
    if node.kwargs or node.dyn_args or node.dyn_kwargs:
        raise BadTemplateError("only plain arguments can be given to a call")


def _is_loop(node: Any) -> bool:
    return type(node.node).__name__ == "Name" and node.node.name == "loop" and node.attr in _LOOP


def bounded(tree: Any) -> Any:
    """Wrap what each `{% for %}` goes over and each `~` joins in a bounding filter that users cannot name."""
    from jinja2 import nodes

    def wrapped(node: Any, name: str) -> Any:
        return nodes.Filter(node, name, [], [], None, None, lineno=node.lineno)

    for loop in tree.find_all(nodes.For):
        loop.iter = wrapped(loop.iter, "(items)")
    for concat in list(tree.find_all(nodes.Concat)):
        concat.nodes = [wrapped(part, "(shown)") for part in concat.nodes]
    for comparison in list(tree.find_all(nodes.Compare)):
        if len(comparison.ops) == 1 and comparison.ops[0].op in ("eq", "ne", "in", "notin"):
            other = comparison.ops[0]
            if _is_text(other.expr):
                comparison.expr = wrapped(comparison.expr, "(text)")
            elif _is_text(comparison.expr) and other.op in ("eq", "ne"):
                other.expr = wrapped(other.expr, "(text)")
    return tree


def _is_text(node: Any) -> bool:
    """Whether this is a text in quotes or a list of such: a value compared with it is compared as it is printed."""
    if type(node).__name__ in ("List", "Tuple"):
        return all(map(_is_text, node.items)) and bool(node.items)
    return type(node).__name__ == "Const" and isinstance(node.value, str)


# --- the allowed operations, each with its bound ---


def _items(value: Any) -> list[Any]:
    # zip: an endless or huge iterable is not walked further than the bound.
    items = [item for _, item in zip(range(MAX_ITEMS + 1), value, strict=False)]
    if len(items) > MAX_ITEMS:
        raise BadTemplateError(f"a {{% for %}} goes over more than {MAX_ITEMS} items")
    return items


def _range(*arguments: int) -> range:
    numbers = range(*arguments)
    if len(numbers) > MAX_ITEMS:
        raise BadTemplateError(f"a range has more than {MAX_ITEMS} numbers")
    return numbers


def _shown(value: Any) -> str:
    """What `{{ }}` prints: a text, number or truth value. Anything else would show how Python writes it."""
    if not isinstance(value, str | int | float):
        # An undefined name complains here, by its name; an `if` without `else` that came to nothing prints nothing.
        if str(value) == "":
            return ""
        raise BadTemplateError(f"a {type(value).__name__} cannot be printed; a text or number can")
    return _short(spelled(value))


def _as_text(value: Any) -> Any:
    return spelled(value) if isinstance(value, int | float) else value


def _short(text: str) -> str:
    if len(text) > MAX_TEXT:
        raise BadTemplateError(f"makes a text of more than {MAX_TEXT:,} characters")
    return text


def _add(left: Any, right: Any) -> Any:
    if isinstance(left, str) and isinstance(right, str):
        return _short(left + right)
    return _small_number(_number(left) + _number(right))


def _multiply(left: Any, right: Any) -> Any:
    return _small_number(_number(left) * _number(right))


def _modulo(left: Any, right: Any) -> Any:
    return _number(left) % _number(right)


def _number(value: Any) -> Any:
    if not isinstance(value, int | float):
        str(value)
        raise BadTemplateError("`+`, `*` and `%` work on numbers here; `~` joins texts")
    return value


def _small_number(value: Any) -> Any:
    if isinstance(value, int) and value.bit_length() > MAX_NUMBER_BITS:
        raise BadTemplateError("calculates too large a number")
    return value


def _replace(text: Any, old: Any, new: Any) -> str:
    whole, part, other = _shown(text), _shown(old), _shown(new)
    if len(whole) + whole.count(part) * len(other) > MAX_TEXT:
        raise BadTemplateError(f"makes a text of more than {MAX_TEXT:,} characters")
    return whole.replace(part, other)


def _join(values: Any, between: Any = "") -> str:
    return _short(_shown(between).join(_shown(value) for value in _items(values)))


def _strip_tags(value: Any) -> str:
    """The text of a piece of HTML, on one line."""
    text = value if isinstance(value, str) else _shown(value)
    if len(text) > MAX_HTML:
        raise BadTemplateError(f"is HTML of more than {MAX_HTML:,} characters")
    return " ".join(html.unescape(_TAG.sub(" ", _INLINE_TAG.sub("", text))).split())


def _truncate(value: Any, length: Any = 255, killwords: Any = False, end: Any = "...", leeway: Any = 5) -> str:
    from jinja2.filters import do_truncate

    if not isinstance(value, str):
        return _shown(value)
    most = min(MAX_TEXT, max(3, int(_number(length))))
    tolerance = max(0, min(MAX_TEXT, int(_number(leeway))))
    return do_truncate(environment(), value, most, bool(killwords), _shown(end)[:most], tolerance)


def _round(value: Any, digits: Any = 0) -> float:
    return round(float(_number(value)), max(-300, min(300, int(digits))))


def _float(value: Any, otherwise: Any = None) -> float:
    """The number that a text shows; `otherwise`, if given, for a text that shows none."""
    try:
        return float(_shown(value))
    except ValueError:
        if otherwise is None:
            raise BadTemplateError(f"{_shown(value)[:40]!r} is no number; `|float(0)` takes 0 for it") from None
        return float(_number(otherwise))


def _on_text(operation: Callable[[str], str]) -> Callable[[Any], str]:
    return lambda value: _short(operation(_shown(value)))


def _default(value: Any, other: Any = "", even_if_empty: Any = False) -> Any:
    from jinja2 import Undefined

    return other if isinstance(value, Undefined) or (even_if_empty and not value) else value


FILTERS: dict[str, Callable[..., Any]] = {
    "abs": lambda value: abs(_number(value)),
    "capitalize": _on_text(str.capitalize),
    "default": _default,
    "first": lambda value: value[0],
    "float": _float,
    "int": lambda value: _small_number(int(float(_shown(value)))),
    "join": _join,
    "last": lambda value: value[-1],
    "length": len,
    "lower": _on_text(str.lower),
    "replace": _replace,
    "round": _round,
    "string": _shown,
    "striptags": _strip_tags,
    "title": _on_text(str.title),
    "trim": _on_text(str.strip),
    "truncate": _truncate,
    "upper": _on_text(str.upper),
}
"""The filters of templates by their names."""


@functools.cache
def environment() -> jinja2.Environment:
    """The sandbox. Jinja2 is imported here: a manifest without templates does not need it."""
    from jinja2 import StrictUndefined
    from jinja2.sandbox import SandboxedEnvironment

    class Environment(SandboxedEnvironment):
        """Its operators are ours, and names lead to nothing but texts' methods and the loop's counters."""

        intercepted_binops = frozenset({"+", "*", "%", "**"})

        def is_safe_attribute(self, obj: Any, attr: str, value: Any) -> bool:  # noqa: ARG002
            return attr in (_METHODS if isinstance(obj, str) else _LOOP)

        def is_safe_callable(self, obj: Any) -> bool:
            return obj is _range or isinstance(getattr(obj, "__self__", None), str)

        def getitem(self, obj: Any, argument: Any) -> Any:
            # Jinja's own falls back to attributes: "text"["upper"] would be a way to a method's address.
            return obj[argument]

        def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:  # noqa: ARG002
            return {"+": _add, "*": _multiply, "%": _modulo}[operator](left, right)

    made = Environment(undefined=StrictUndefined, finalize=_shown, autoescape=False, cache_size=0)
    made.globals = {"range": _range}
    made.filters = {**FILTERS, "(items)": _items, "(shown)": _shown, "(text)": _as_text}
    return made
