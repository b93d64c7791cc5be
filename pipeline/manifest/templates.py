"""Renders prompts: a small, safe, repeatable part of Jinja2.

Safe: a template reaches values only, and every step of it is bounded in size and time. Repeatable: the same values give
the same text in every process, since the text is what a job's id is a hash of; so nothing random, no address of an
object and no clock can get into it. Both are had by allowing what is known, and refusing the rest.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Container, Mapping
from typing import TYPE_CHECKING, Any

from pipeline.manifest.mistakes import near_miss
from pipeline.manifest.template_language import MAX_TEXT, BadTemplateError, bounded, check, environment
from pipeline.models.base import Scalar

if TYPE_CHECKING:
    import jinja2

MAX_TEMPLATE = 10_000

_MARKERS = ("{{", "{%", "{#")
_SINGLE_BRACED = re.compile(r"(?<!\{)\{([A-Za-z_][A-Za-z0-9_]*)\}(?!\})")
_UNDEFINED = re.compile(r"'([^']{1,100})' is undefined")
_TRUTHS = frozenset({"true", "false"})
_NO_COLUMN = "the record has no column"


def is_template(text: str) -> bool:
    """Whether the text has anything to render."""
    return "{" in text and any(marker in text for marker in _MARKERS)


def render(text: str, values: Mapping[str, Any], columns: Container[str] = ()) -> str:
    """The template's text with `values` filled in. `columns` are the row's names, also those without a value.

    Raises:
        BadTemplateError: for a name that is not among the values, bad syntax, what is not allowed, and too long a text.
    """
    template = _compiled(text)
    if isinstance(template, str):
        raise BadTemplateError(template)
    pieces, length = [], 0
    try:
        for piece in template.generate(values):
            pieces.append(piece)
            length += len(piece)
            if length > MAX_TEXT:
                raise BadTemplateError(f"gives more than {MAX_TEXT:,} characters")
    except BadTemplateError:
        raise
    except Exception as error:  # a template is somebody else's program: whatever it raises is its own mistake
        raise _problem(error, values, columns) from None
    return "".join(pieces)


class Record(dict[str, Scalar]):
    """A record under the name `row`: `row["Image Src"]` reaches a column of any name."""

    def __missing__(self, name: str) -> Any:
        from jinja2 import StrictUndefined

        near = near_miss(str(name), self)
        advice = f"did you mean '{near}'?" if near else f"it has {', '.join(list(self)[:20])}"
        return StrictUndefined(f"{_NO_COLUMN} '{str(name)[:60]}'; {advice}", name=str(name))


class Word(str):
    """`TRUE` or `False`, as spreadsheets and Python write them: printed as written, and false is false."""

    __slots__ = ()

    def __bool__(self) -> bool:
        return self.casefold() == "true"

    def __eq__(self, other: object) -> bool:
        return bool(self) is other if isinstance(other, bool) else str.__eq__(self, other)

    def __ne__(self, other: object) -> bool:
        return not self == other

    __hash__ = str.__hash__


def seen(values: Mapping[str, Scalar]) -> dict[str, Scalar]:
    """Values as a template sees them: the texts `true` and `false`, in letters of any size, are truth values."""
    return {
        name: Word(value) if isinstance(value, str) and len(value) < 6 and value.casefold() in _TRUTHS else value
        for name, value in values.items()
    }


def scope(record: Mapping[str, Scalar]) -> dict[str, Any]:
    """What a template over a record sees: its columns by their names, and all of them as `row`."""
    values = seen(record)
    return {"row": Record(values), **values}


def single_braced(text: str, names: Container[str]) -> str | None:
    """A name in single braces, as other tools write their templates, that is one of `names`; else None."""
    return next((name for name in _SINGLE_BRACED.findall(text) if name in names), None)


def names_in(text: str) -> frozenset[str]:
    """The names that the template takes from outside; none if it cannot be read."""
    from jinja2 import meta

    try:
        return frozenset(meta.find_undeclared_variables(environment().parse(text[:MAX_TEMPLATE])))
    except Exception:  # the parser's own, or Python's for what is nested too deep and for a number of 5,000 digits
        return frozenset()


@functools.lru_cache(maxsize=4096)
def _compiled(text: str) -> jinja2.Template | str:
    """The compiled template, or why there is none: a bad one is not compiled again for every row."""
    if len(text) > MAX_TEMPLATE:
        return f"is {len(text):,} characters long; {MAX_TEMPLATE:,} are the most"
    jinja = environment()
    try:
        tree = jinja.parse(text)
        check(tree)
        code = jinja.compile(bounded(tree))
        return jinja.template_class.from_code(jinja, code, jinja.make_globals(None))
    except BadTemplateError as problem:
        return str(problem)
    except Exception as error:  # the parser's own, or Python's for what is nested too deep
        return str(_problem(error, {}))


def _problem(error: Exception, values: Mapping[str, Any], columns: Container[str] = ()) -> BadTemplateError:
    message = getattr(error, "message", None) or str(error) or type(error).__name__
    if message.startswith(_NO_COLUMN):
        return BadTemplateError(message)
    if isinstance(error, TypeError) and "not supported between instances of" in message:
        return BadTemplateError("compares a text with a number; write `|float` behind the text")
    undefined = _UNDEFINED.search(message)
    if undefined and (name := undefined[1]) in columns:
        advice = f'give one here or in `defaults`, or write {{{{ {name}|default("") }}}}'
        return BadTemplateError(f"`{name}` has no value in this row; {advice}")
    if undefined:
        near = near_miss(undefined[1], values)
        given = ", ".join(sorted(values.keys() - {"row"})[:20])
        advice = f"did you mean `{near}`?" if near else f"this row has {given}"
        return BadTemplateError(f"`{undefined[1]}` is not defined here; {advice}")
    if isinstance(error, RecursionError | MemoryError):
        return BadTemplateError("the template is nested too deep")
    line = getattr(error, "lineno", None)
    where = f" (line {line} of the template)" if line and line > 1 else ""
    return BadTemplateError(f"the template cannot be rendered: {message[:200]}{where}")
