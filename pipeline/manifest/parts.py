"""One manifest shared out over several run directories: each has a key, a ledger and a cap of its own.

A job belongs to a part by its id alone. So a row that is added, moved or removed moves no other job, and the parts of
one manifest never make the same job twice.
"""

from __future__ import annotations

import dataclasses
import re
from dataclasses import dataclass

from pipeline.kernel.errors import InputError
from pipeline.manifest.campaign import Campaign

MOST_PARTS = 1000
_WRITTEN = re.compile(r"([0-9]{1,4})/([0-9]{1,4})")
_DIGITS = 12


@dataclass(frozen=True, slots=True)
class Part:
    """Part `number` of `count`, counted from 1."""

    number: int
    count: int

    def __str__(self) -> str:
        return f"{self.number}/{self.count}"

    def has(self, job_id: str) -> bool:
        """Whether a job belongs to this part: its id ends in hexadecimal digits of a hash of all that it is."""
        return int(job_id[-_DIGITS:], 16) % self.count == self.number - 1


def parse_part(text: str) -> Part:
    """A part as it is written on the command line, such as `2/5`.

    Raises:
        InputError: it is none.
    """
    found = _WRITTEN.fullmatch(text.strip())
    number, count = (int(found[1]), int(found[2])) if found else (0, 0)
    if not 1 <= number <= count <= MOST_PARTS:
        raise InputError(f"--part: {text[:40]!r} is no part; write 1/3, 2/3 and 3/3 for a manifest in three parts")
    return Part(number, count)


def part_of(campaign: Campaign, part: Part) -> Campaign:
    """The campaign with only the entries of one part. Its name has the part in it, and so has its run directory."""
    return dataclasses.replace(
        campaign,
        name=f"{campaign.name}-{part.number}-of-{part.count}",
        entries=tuple(entry for entry in campaign.entries if part.has(entry.job.job_id)),
        part=str(part),
    )
