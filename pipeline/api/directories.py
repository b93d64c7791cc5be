"""Run directories: how they stand, what is in them as tables, and what can be done with one without a run."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.api.configuring import AnyConfig, config_of, key_of, load_config
from pipeline.api.loops import in_own_loop
from pipeline.api.places import folder_of, runs_folder
from pipeline.kernel.address import address_of
from pipeline.kernel.errors import InputError

if TYPE_CHECKING:
    import pandas as pd

    from pipeline.dataset.write import Exported
    from pipeline.ledger.fold import State
    from pipeline.looking.view import Look
    from pipeline.settling import Reconciliation, Resolution

SMALLEST_SHARD, LARGEST_SHARD = 1_000, 10**13
"""In bytes."""


class RunDirectory:
    """A run directory, looked at beside a live run or at rest. Every call tells how it stands then.

    Each of them raises a RunDirectoryError where the directory is damaged, and a MachineError where the disk refuses.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._last: Look | None = None

    def results(self) -> pd.DataFrame:
        """A line per row and replicate in the manifest's order, whatever became of it: results.csv with its types.

        `cost_usd` is text with exact cents; parameters and variables have the types of the manifest.
        """
        from pipeline.report.columns import in_pandas, typed
        from pipeline.report.tables import results_by_columns

        seen = self._look()
        return in_pandas(typed(results_by_columns(seen.lines(), seen.state, live=seen.is_live)))

    def errors(self) -> pd.DataFrame:
        """A line per attempt that did not end well: errors.csv with its types."""
        from pipeline.report.columns import columns_of_rows, in_pandas, typed
        from pipeline.report.tables import ERROR_COLUMNS, errors

        seen = self._look()
        return in_pandas(typed(columns_of_rows(errors(seen.lines(), seen.state), ERROR_COLUMNS)))

    def ledger(self) -> pd.DataFrame:
        """Every event, each once and checked, in order: the ledger's columns. Money is micro-dollars."""
        from pipeline.ledger.reading import read_table

        table: pd.DataFrame = read_table(self.folder / "ledger").to_pandas()
        return table

    def summary(self) -> dict[str, Any]:
        """Counts of jobs, money as text with exact cents, how the last run ended: the content of summary.json."""
        return self._look().summary()

    def status(self) -> dict[str, Any]:
        """The summary, and what there is to tell of a run that goes on: what `kling-batch status --json` says."""
        look = self._look()
        return look.summary() | look.details()

    def _look(self) -> Look:
        from pipeline.kernel.clock import SystemClock
        from pipeline.looking.view import look

        self._last = look(self.folder, SystemClock().now_us(), self._last)
        return self._last

    def report(self, *, bom: bool = False, xlsx: bool = False) -> dict[str, Any]:
        """Write the report files again from the ledger; returns the summary.

        Args:
            bom: whether the CSV files begin with a byte order mark, by which Excel knows UTF-8.
            xlsx: whether results.xlsx is written as well.
        """
        from pipeline.runner.reporting import rewrite_report

        return rewrite_report(self.folder, bom=bom, xlsx=xlsx)

    def contact_sheets(self) -> list[str]:
        """Write large pictures with frames of every stored clip; returns their names."""
        from pipeline.runner.reporting import write_contact_sheets

        self._bring_back(self._look().state)
        return write_contact_sheets(self.folder)

    def export(
        self,
        to: Path | str,
        *,
        format: str,  # noqa: A002 - the word of the command line
        where: Iterable[str] = (),
        license: str = "other",  # noqa: A002 - as above
        shard_bytes: int | None = None,
    ) -> Exported:
        """Export the stored videos as a data set; see the function `export`."""
        from pipeline.dataset import write

        if not str(to).strip():
            raise InputError("--to: names nothing; write it like --to quickstart-hf")
        size = write.DEFAULT_SHARD_BYTES if shard_bytes is None else _size(shard_bytes, format)
        asked = write.AskedOfExport(format, (where,) if isinstance(where, str) else tuple(where), license, size)
        seen = self._look()
        self._bring_back(seen.state)
        if (address := address_of(to)) is not None:
            return write.export_to_store(self.folder, seen.lines(), seen.state, address, asked)
        return write.export(self.folder, seen.lines(), seen.state, Path(to), asked)

    def _bring_back(self, state: State) -> None:
        """Have the stored videos here, also where they are kept in object storage alone."""
        from pipeline.ledger.job import JobState
        from pipeline.mirror.mirror import mirror_of

        if (mirror := mirror_of(self.folder)) is not None:
            mirror.files.bring_back(state.in_state(JobState.STORED))


def open_run(directory: Path | str) -> RunDirectory:
    """A run directory, to be looked at.

    Raises:
        RunDirectoryError: it is none.
    """
    from pipeline.looking.view import require_ledger

    folder = folder_of(directory)
    require_ledger(folder)
    return RunDirectory(folder)


def find_runs(folder: Path | str | None = None) -> list[Path]:
    """The run directories in a folder, the one that was written to last first.

    Args:
        folder: the configured `output.dir` without it.

    Raises:
        MachineError: the folder is there and cannot be read.
    """
    from pipeline.looking import runs

    return runs.find_runs(runs_folder(load_config()) if folder is None else Path(folder))


def list_runs(folder: Path | str | None = None, *, most: int | None = None) -> Sequence[Mapping[str, Any]]:
    """How each run directory in a folder stands, the latest activity first; a damaged one has an `error`.

    Args:
        folder: the configured `output.dir` without it.
        most: look only at so many, those that were written to last.

    Raises:
        MachineError: the folder is there and cannot be read.
    """
    from pipeline.kernel.clock import SystemClock
    from pipeline.looking.runs import rows_of

    return rows_of(find_runs(folder)[:most], SystemClock().now_us())


async def reconcile(directory: Path | str, config: AnyConfig = None) -> Reconciliation:
    """Settle what is in doubt from the provider's history, and list what it and the ledger do not agree on.

    Nothing is submitted, so it costs nothing.

    Args:
        config: as in `config_of`: that of the directory's last run without it.

    Raises:
        InputError: the directory is held, damaged, none at all, or belongs to another provider; or there is no key.
        MachineError: the disk refused.
    """
    from pipeline import settling

    folder = folder_of(directory)
    used = config_of(folder, config)
    return await settling.reconcile(folder, used, key=key_of(used))


def resolve(
    directory: Path | str, attempt: str, *, billed: str | None = None, not_billed: bool = False, note: str | None = None
) -> Resolution:
    """Record your word on an attempt in doubt, with the time and your name. Nothing is sent.

    Args:
        attempt: `JOB_ID/NUMBER` as the status shows it; a job's or row's id where only one attempt is in doubt.
        billed: it was accepted, under this request id.
        not_billed: it was not; its money is free and the job is sent again.
        note: why, for the ledger.

    Raises:
        InputError: no such attempt is in doubt, or not one of the two is said. Nothing was recorded.
        MachineError: the disk refused.
    """
    from pipeline import settling

    if (billed is None) is not not_billed:
        raise InputError("say either --billed REQUEST_ID or --not-billed. Nothing was recorded.")
    folder = folder_of(directory)
    return in_own_loop(lambda: settling.resolve(folder, attempt, request_id=billed, note=note))


def export(
    directory: Path | str,
    to: Path | str,
    *,
    format: str,  # noqa: A002 - the word of the command line
    where: Iterable[str] = (),
    license: str = "other",  # noqa: A002 - as above
    shard_bytes: int | None = None,
) -> Exported:
    """Export the stored videos of a run directory as a data set. Each is held against the ledger again.

    Args:
        to: the folder to write, or its address in object storage: new, empty, or an export to refresh.
        format: `hf` (Hugging Face video folder), `webdataset` (tar shards), `csv` or `parquet` (a table, and videos).
        where: only clips of which the results say so, like `product=mug`; all must hold.
        license: the licence on the card, as Hugging Face names it: `cc-by-4.0`.
        shard_bytes: the most that a tar shard has; 1 GB without it.

    Raises:
        InputError: something asked for makes no sense, or nothing is stored; nothing was written.
        MachineError: the disk refused; export again to go on.
    """
    return open_run(directory).export(to, format=format, where=where, license=license, shard_bytes=shard_bytes)


def _size(shard_bytes: int, form: str) -> int:
    if form != "webdataset":
        raise InputError("--shard-size: only --format webdataset has shards")
    if not SMALLEST_SHARD <= shard_bytes <= LARGEST_SHARD:
        raise InputError(f"--shard-size: {shard_bytes} bytes is no size from 1KB to 10TB; write it like 1GB or 500MB")
    return shard_bytes
