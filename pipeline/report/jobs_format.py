"""The format of jobs.parquet: its columns, and the texts in which parameters and variables stand there."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson
import pyarrow as pa

from pipeline.kernel.errors import RunDirectoryError

if TYPE_CHECKING:
    # Types only: a command that just looks at a run directory must not wait for the import of what reads manifests.
    from pipeline.jobs import Kind

FILE = "jobs.parquet"

_FIELDS: list[pa.Field[Any]] = [
    pa.field("row", pa.int64()),
    pa.field("id", pa.string()),
    pa.field("replicate", pa.int32()),
    pa.field("job_id", pa.string()),
    pa.field("model", pa.string()),
    pa.field("priority", pa.int64()),
    pa.field("prompt", pa.string()),
    pa.field("settings", pa.string()),
    pa.field("variables", pa.string()),
]
SCHEMA = pa.schema(_FIELDS)
SHARED = ("model", "settings", "variables")
"""Columns in which most lines say the same."""
IN_MEMORY = pa.schema(
    [field.with_type(pa.dictionary(pa.int32(), pa.string())) if field.name in SHARED else field for field in _FIELDS]
)
"""The same columns as a table in memory has them, with each text of a shared column once: half the room."""
VERSION = 2
"""Version of the format, part of every mark. Raise it when the same entries would give a different file."""
_NOTHING = "{}"
BROKEN = (ValueError, TypeError, RecursionError)
"""What reading a damaged text of parameters or variables can raise."""


def lines_table(columns: Mapping[str, Sequence[Any]]) -> pa.Table:
    """The lines that have these values in each column."""
    arrays = [pa.array(columns[field.name], type=field.type) for field in _FIELDS]
    return sharing(pa.Table.from_arrays(arrays, schema=SCHEMA))


def sharing(table: pa.Table) -> pa.Table:
    """The same lines as `IN_MEMORY` has them; some of the columns may be missing."""
    return table.cast(pa.schema([IN_MEMORY.field(name) for name in table.column_names])).unify_dictionaries()


def settings_texts(kinds: Sequence[Kind]) -> list[str]:
    """`settings_text` of each kind; made once for all jobs of a kind."""
    texts = {kind: settings_text(kind.params) for kind in dict.fromkeys(kinds)}
    return list(map(texts.__getitem__, kinds))


def settings_text(settings: Mapping[str, Any]) -> str:
    """Parameters besides the prompt as JSON."""
    plain = settings if type(settings) is dict else dict(settings)
    try:
        return orjson.dumps(plain).decode()
    except TypeError:
        return json.dumps(plain)


def read_settings(text: str) -> Any:
    """What `settings_text` wrote. Raises one of `BROKEN` for a text that is no JSON."""
    try:
        return orjson.loads(text)
    except ValueError:
        return json.loads(text)


def parted(params: Mapping[str, Any]) -> tuple[str | None, str]:
    """The prompt, and the text of all other parameters. A prompt that is no proper text stays among these."""
    prompt = params.get("prompt")
    if isinstance(prompt, str):
        with contextlib.suppress(UnicodeEncodeError):
            prompt.encode()
            return prompt, settings_text({name: value for name, value in params.items() if name != "prompt"})
    return None, settings_text(params)


def together(prompt: str | None, settings: dict[str, Any]) -> dict[str, Any]:
    """All parameters of a line, the prompt first."""
    return settings if prompt is None else {"prompt": prompt, **settings}


def variables_texts(variables: Sequence[Mapping[str, Any]]) -> list[str]:
    """`variables_text` of each; made once for variables that rows share."""
    each = dict(zip(map(id, variables), variables, strict=True))
    texts = {number: variables_text(mine) for number, mine in each.items()}
    return list(map(texts.__getitem__, map(id, variables)))


def variables_text(variables: Mapping[str, Any]) -> str:
    """Variables as JSON."""
    # Not orjson: a variable may be a number of any size, and half a character.
    return json.dumps(dict(variables)) if variables else _NOTHING


def objects(read: Callable[[str], Any], texts: Any) -> list[dict[str, Any]]:
    """What `read` makes of each text. Raises one of `BROKEN` where that is no object."""
    values = list(map(read, texts.to_pylist()))
    if not set(map(type, values)) <= {dict}:
        raise TypeError("no JSON object")
    return values


def unreadable(folder: Path, why: Exception | str) -> RunDirectoryError:
    """The error to raise where the lines of a run directory cannot be read."""
    if not isinstance(why, str):
        why = (isinstance(why, OSError) and why.strerror) or type(why).__name__
    return RunDirectoryError(f"{folder / FILE} cannot be read ({why}). The next `run` of its manifest writes it anew.")
