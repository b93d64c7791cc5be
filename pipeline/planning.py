"""What a plan tells beside its sums: what changed since the last run, every entry in a file, what the account holds."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from pathlib import Path

from pipeline.config import Config
from pipeline.difference import NO_DIFFERENCE, Difference, difference
from pipeline.forecast import Plan
from pipeline.kernel.clock import Clock, SystemClock
from pipeline.kernel.errors import ErrorClass, InputError, MachineError, Reaction
from pipeline.kernel.files import write_file
from pipeline.kernel.usd import MicroUsd
from pipeline.ledger.fold import State
from pipeline.manifest import Campaign
from pipeline.manifest.campaign import jobs_of
from pipeline.provider.replies import Refused
from pipeline.report.entries import has_entries, load_keys
from pipeline.runner import SANDBOX_FOLDER, RunOptions, chosen_entries, open_provider, price_of


def changes_since(folder: Path, campaign: Campaign, config: Config, state: State) -> Difference | None:
    """What became of the manifest since the last run on a directory; None if there was none.

    Raises:
        RunDirectoryError: the rows of the last run cannot be read.
    """
    if not has_entries(folder):
        return None
    before = load_keys(folder)
    if before.job_ids == [job.job_id for job in jobs_of(campaign.entries)]:
        return NO_DIFFERENCE
    price = price_of(config)
    return difference(before, campaign.entries, state, lambda job: state.books.quote(price(job)))


async def ask_credits(config: Config, folder: Path, key: str, clock: Clock | None = None) -> MicroUsd:
    """What the account holds: one free call, and proof that the key is good. The run directory stays untouched.

    Raises:
        InputError: the key was refused, or the account has nothing to say.
        MachineError: no answer came.
    """
    with tempfile.TemporaryDirectory() as name:
        _copy_sandbox_memory(folder, Path(name))
        async with open_provider(config, Path(name), key, clock or SystemClock(), looking=True) as provider:
            reply = await provider.client.credits()
    if isinstance(reply, int):
        return reply
    if isinstance(reply, Refused) and reply.error_class.reaction is Reaction.STOP_ACCOUNT:
        refused = reply.error_class is ErrorClass.UNAUTHORIZED
        said = "the key was refused" if refused else "the account's credits cannot be told"
        raise InputError(f"--check-account: {said}: {reply.message.rstrip('. ')}")
    raise MachineError(f"--check-account: the account could not be asked: {reply.message.rstrip('. ')}; try again")


def _copy_sandbox_memory(folder: Path, copy: Path) -> None:
    """An embedded sandbox that is only asked works on a copy: a run may hold the original."""
    (copy / SANDBOX_FOLDER).mkdir()
    with contextlib.suppress(FileNotFoundError):
        shutil.copyfile(folder / SANDBOX_FOLDER / "journal.jsonl", copy / SANDBOX_FOLDER / "journal.jsonl")


def write_expansion(
    path: Path, campaign: Campaign, config: Config, plan: Plan, state: State, options: RunOptions, *, live: bool
) -> None:
    """Write every entry of a plan, as a table, to a `.csv` or `.parquet` file.

    Args:
        live: whether a run holds the directory now.

    Raises:
        MachineError: the disk refused.
    """
    from pipeline.report.expansion import expansion_bytes

    price = price_of(config)
    places = enumerate(zip(plan.to_do, plan.fits, strict=True), start=1)
    data = expansion_bytes(
        path.suffix.lower(),
        chosen_entries(campaign, options.ids),
        state,
        starts={job.job_id: (number, fit) for number, (job, fit) in places},
        price=lambda job: state.books.quote(price(job)),
        live=live,
    )
    try:
        write_file(path, data)
    except OSError as error:
        raise MachineError(f"{path} cannot be written: {error.strerror}") from None
