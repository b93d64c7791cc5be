"""Merging segments that follow each other into one, which stands for them before any of them goes."""

from __future__ import annotations

import contextlib
import errno
import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import pyarrow as pa

from pipeline.kernel.errors import RunDirectoryError
from pipeline.ledger import segments
from pipeline.ledger.encoding import SCHEMA, Content, encode_merged, in_groups
from pipeline.ledger.segments import SegmentName

COMPARED_AT_ONCE = 2**13
"""How many rows of a merged segment are compared with those of the old ones at a time."""


def merge_segments(
    folder: Path,
    names: Sequence[SegmentName],
    *,
    sealed: bool = False,
    known: Mapping[SegmentName, Content] | None = None,
) -> SegmentName:
    """Replace segments that follow each other by one with the same events and the same place in the chain.

    A kill at any point leaves either the old ones, or both (then the merged one counts), or the merged one. The old
    ones go only when the merged one was read back and holds what they hold.

    Args:
        sealed: whether newer segments follow. Then more may be written meanwhile, and the head stays with those.
        known: what some of them hold, as this process has written it: reading them back costs as much as all the rest.

    Raises:
        RunDirectoryError: one of them is damaged.
        OSError: the disk refused, or did not keep what was written; the old ones stay then.
    """
    group = _Group(folder, names, known or {})
    merged = segments.place(folder, names[0].first, names[-1].last, group.encode())
    if not sealed:
        segments.write_head(folder, merged)
    try:
        if not group.is_in(merged):
            raise segments.damage(folder, str(merged), "is not what was written")
    except _OldDamageError:
        # An old segment was whole when the merged one was made of it, and is damaged now. The merged one stays: it may
        # be the only good copy.
        raise
    except RunDirectoryError as damage:
        segments.remove_segments(folder, [merged] if merged not in names else [])
        raise OSError(errno.EIO, "a merged segment did not keep its bytes") from damage
    with contextlib.suppress(OSError):  # what is left stands beside it until the ledger is opened again
        segments.remove_segments(folder, [name for name in names if name != merged])
    return merged


class _OldDamageError(RunDirectoryError):
    """One of the segments that are to become one is damaged."""


@dataclass(frozen=True)
class _Group:
    """Segments that are to become one, and what is `known` of some of them."""

    folder: Path
    names: Sequence[SegmentName]
    known: Mapping[SegmentName, Content]

    @cached_property
    def ends(self) -> tuple[str, str]:
        """Where the chain stands before and after them."""
        first, last = (self.known.get(name) for name in (self.names[0], self.names[-1]))
        before = first.before if first else segments.ends_of(self.folder, self.names[0])[0]
        return before, last.after if last else segments.ends_of(self.folder, self.names[-1])[1]

    def encode(self) -> bytes:
        """The bytes of the segment that will stand for them."""
        rows = self.names[-1].last - self.names[0].first + 1
        return encode_merged(self._tables(), rows, *self.ends)

    def is_in(self, name: SegmentName) -> bool:
        """Whether a segment holds the same events, in the same place of the chain."""
        file, *ends = segments.open_segment(self.folder, name)
        merged = segments.parts_of(self.folder, name, file, COMPARED_AT_ONCE)
        pairs = itertools.zip_longest(*(in_groups(each, COMPARED_AT_ONCE) for each in (merged, self._tables())))
        are_same = all(mine is not None and theirs is not None and mine.equals(theirs) for mine, theirs in pairs)
        return are_same and (*ends,) == self.ends

    def _tables(self) -> Iterator[pa.Table]:
        """The events of each, checked: they must follow each other."""
        reached = None
        try:
            for name in self.names:
                content = self.known.get(name) or segments.read_content(self.folder, name)
                if not content.table.schema.equals(SCHEMA):
                    raise segments.damage(
                        self.folder, str(name), "cannot be read (its columns are not those of a ledger)"
                    )
                if content.table["seq"].to_pylist() != list(range(name.first, name.last + 1)):
                    raise segments.other_events(self.folder, name)
                if reached not in (None, content.before):
                    raise segments.not_next(self.folder, name)
                reached = content.after
                yield content.table.replace_schema_metadata(None)
        except RunDirectoryError as error:
            raise _OldDamageError(str(error)) from None
