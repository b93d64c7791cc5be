"""What a plan tells beside its sums: what changed since the last run, and every entry in a file."""

from __future__ import annotations

from pathlib import Path

from pipeline.config import Config
from pipeline.difference import NO_DIFFERENCE, Difference, difference
from pipeline.forecast import Plan
from pipeline.kernel.errors import MachineError
from pipeline.kernel.files import write_file
from pipeline.ledger.fold import State
from pipeline.manifest import Campaign
from pipeline.manifest.campaign import job_ids_of
from pipeline.report.jobs_file import are_of, has_entries, load_keys
from pipeline.runner.choice import RunOptions, chosen_entries, price_of


def changes_since(folder: Path, campaign: Campaign, config: Config, state: State) -> Difference | None:
    """What became of the manifest since the last run on a directory; None if there was none.

    Raises:
        RunDirectoryError: the rows of the last run cannot be read.
    """
    if not has_entries(folder):
        return None
    if are_of(folder, job_ids_of(campaign.entries)):
        return NO_DIFFERENCE
    before = load_keys(folder)
    price = price_of(config)
    return difference(before, campaign.entries, state, lambda job: state.books.quote(price(job), job.price_key))


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
        price=lambda job: state.books.quote(price(job), job.price_key),
        live=live,
    )
    try:
        write_file(path, data)
    except OSError as error:
        raise MachineError(f"{path} cannot be written: {error.strerror}") from None
