"""How a plan looks: what a person reads before saying yes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pipeline.cli.screen import SANDBOX_NOTE, about, count, dollars, local_hour, printable, shortened, table

if TYPE_CHECKING:
    from pipeline.api import Prepared
    from pipeline.api.types import AxisValue, Change, Difference, Entry, Plan, PriceLine, Scalar, Trial

AXES_SHOWN = 6
VALUES_SHOWN = 12
HELD_SHOWN = 3
CANARIES_SHOWN = 3
VALUE_WIDTH = 30
"""Characters for the value of an axis: even with a million jobs, a line has no more than 80."""
AXES_WIDTH = 48
HOUR_FROM_S = 120.0
"""From this expected time on, the hour of the end is shown, too."""

RIGHT = frozenset({1, 2, 3, 4})


def screen_of(
    prepared: Prepared, plan: Plan, changes: Difference | None, canary: Trial | None, *, whole: bool = False
) -> str:
    """The plan of what was prepared, as it looks now; see `plan_screen`."""
    from pipeline.kernel.clock import SystemClock

    return plan_screen(
        prepared.campaign.name,
        plan,
        str(prepared.folder),
        live=prepared.config.is_live,
        now_us=SystemClock().now_us(),
        changes=changes,
        canary=canary,
        whole=whole,
        address=prepared.address,
    )


def plan_screen(
    name: str,
    plan: Plan,
    folder: str,
    *,
    live: bool,
    now_us: int,
    changes: Difference | None = None,
    canary: Trial | None = None,
    whole: bool = False,
    address: str | None = None,
) -> str:
    """The plan as a person reads it before saying yes.

    Args:
        live: whether real money would be spent.
        now_us: the present, microseconds since 1970.
        canary: the jobs that go first.
        whole: whether each value of each axis is listed with its sums, and the jobs that the cap stops.
        address: where in object storage the run directory is; None where it is on the disk alone.
    """
    lines = [] if live else [SANDBOX_NOTE]
    shared = f", {plan.duplicates:,} shared with an earlier row" if plan.duplicates else ""
    head = f"{printable(name)}: {count(plan.rows, 'row')}, {count(plan.jobs, 'job')}{shared}"
    lines += [f"{head}  ->  {printable(f'{address}, by way of {folder}' if address else folder)}", ""]
    lines += _changes(changes) if changes else []
    lines += [*_sums(plan, whole=whole), "", *_raised(plan), *_done(plan)]
    lines.append(
        f"Cap {dollars(plan.cap)}, of which {dollars(plan.committed)} is spent or set aside: "
        f"{dollars(plan.free)} is free."
    )
    lines += _allowance(plan, whole=whole)
    lines += _canary(plan, canary) if canary else []
    lines += _time(plan, now_us)
    return "\n".join(lines)


def _changes(changes: Difference) -> list[str]:
    """What became of the rows since the last run; a line for each kind of change."""
    rows = []
    for word, change in (("added", changes.added), ("changed", changes.changed), ("removed", changes.removed)):
        if change.rows:
            rows.append([f"{count(change.rows, 'row')} {word}", "; ".join(_change(change))])
    return ["Since the last run:", table(rows), ""]


def _change(change: Change) -> list[str]:
    parts = []
    if change.jobs:
        made = change.jobs - change.to_do
        parts.append(f"{count(change.jobs, 'new job')}, {dollars(change.cost)}")
        if made:
            parts[0] += f" ({made:,} made or begun already)"
    if change.videos:
        what = "1 old video stays" if change.videos == 1 else f"{change.videos:,} old videos stay"
        parts.append(f"{what}, {dollars(change.spent)} spent")
    if change.on_their_way:
        parts.append(f"{count(change.on_their_way, 'old job')} still on the way")
    return parts or ["nothing was made of them"]


def _sums(plan: Plan, *, whole: bool) -> list[str]:
    """What each length comes to, and with `whole` each value of each axis, in columns below each other."""
    rows = [["length", "price", "jobs", "to do", "cost"]]
    rows += [[f"{line.price_key} s", dollars(line.price), *_cells(line)] for line in plan.lines]
    rows.append(["all", "", f"{plan.jobs:,}", f"{len(plan.to_do):,}", dollars(plan.cost)])
    for axis in plan.axes[:AXES_SHOWN] if whole else ():
        rows += [[""] * 5, [shortened(axis.name, VALUE_WIDTH), *[""] * 4]]
        for value in axis.values[:VALUES_SHOWN]:
            rows.append([shortened(_shown(value.value), VALUE_WIDTH), "", *_cells(value)])
        if (more := len(axis.values) - VALUES_SHOWN) > 0:
            rows.append([f"… and {more:,} more", *[""] * 4])
    if whole and len(plan.axes) > AXES_SHOWN:
        rows += [[""] * 5, [f"… and {count(len(plan.axes) - AXES_SHOWN, 'axis', 'axes')} more", *[""] * 4]]
    return [line.rstrip() for line in table(rows, right=RIGHT).split("\n")]


def _cells(line: PriceLine | AxisValue) -> tuple[str, str, str]:
    return f"{line.jobs:,}", f"{line.to_do:,}", dollars(line.cost)


def _shown(value: Scalar) -> str:
    """A value in the manifest's spelling."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return str(value)


def _raised(plan: Plan) -> list[str]:
    """Which jobs are reckoned at more than their price, and why."""
    return [
        f"Charges above the price were seen here: {dollars(line.price)} is set aside for a job of {line.price_key} s, "
        f"whose price is {dollars(line.listed)}."
        for line in plan.lines
        if line.price > line.listed
    ]


def _done(plan: Plan) -> list[str]:
    """What is there already, and what becomes of it."""
    words = {
        "stored": plan.stored,
        "running": plan.running,
        "paid and not yet on disk": plan.unfetched,
        "in doubt": plan.in_doubt,
        "failed": plan.failed,
    }
    said = ", ".join(f"{number:,} {word}" for word, number in words.items() if number)
    lines = [f"Already: {said}."] if said else []
    if plan.running or plan.unfetched:
        lines.append("A run first collects what is running or paid, which is free.")
    if plan.in_doubt:
        lines.append("What is in doubt is looked for in the history before it is paid again.")
    if plan.failed:
        lines.append("What failed stays as it is; --retry-failed tries it anew.")
    return lines


def _allowance(plan: Plan, *, whole: bool) -> list[str]:
    """What limit and cap let through."""
    if not plan.to_do:
        return ["Nothing new to make."]
    wanted, lines = len(plan.to_do) - plan.held_by_limit, []
    if plan.held_by_limit:
        lines.append(f"The limit starts {wanted:,} of {count(len(plan.to_do), 'job')}; the rest is for later runs.")
    if plan.held_by_cap:
        allowed = f"{plan.allowed:,}" if plan.allowed else "none"
        let = f"The cap lets {allowed} of {count(wanted, 'job')} through, for {dollars(plan.allowed_cost)}."
        lines.append(let if wanted > 1 else "The cap does not let the job through.")
        lines += _stopped(plan) if whole else []
        lines.append(f"A cap of {dollars(plan.committed + plan.cost)} would do for all that is left.")
    else:
        what = f"all {count(wanted, 'job')}" if wanted > 1 else "the job"
        lines.append(f"The cap lets {what} through, for at most {dollars(plan.allowed_cost)}.")
    return lines


def _canary(plan: Plan, canary: Trial) -> list[str]:
    """What goes first, and what the rest waits for."""
    if not plan.to_do or (canary.is_passed and not canary.proven):
        return []
    if canary.is_passed:
        return [f"Canary: passed; {count(len(canary.proven), 'job')} stored at the quote."]
    parts = [f"{count(len(canary.under_way), 'job')} under way"] if canary.under_way else []
    if first := canary.to_start:
        names = ", ".join(job.stem for job in first[:CANARIES_SHOWN])
        more = ", …" if len(first) > CANARIES_SHOWN else ""
        cost = dollars(sum(plan.price_of(job) for job in first))
        parts.append(f"{count(len(first), 'job')} first ({names}{more}), for {cost}")
    rest = "the rest only if they are stored and cost what they should"
    return [f"Canary: {' and '.join(parts)}; {rest if len(first) < len(plan.to_do) else 'there is no rest'}."]


def _stopped(plan: Plan) -> list[str]:
    """Where the cap stops, and what is not made first."""
    if plan.last is None:
        return []
    last = " ".join(_label(plan.last)).rstrip()
    lines = [f"The cap stops after {last}.", "Not made, in this order:"]
    if plan.passes_over:
        lines = [f"The last that fits is {last}.", "Not made, or passed over for what is cheaper, in this order:"]
    lines.append(table([_label(entry) for entry in plan.held[:HELD_SHOWN]]))
    more = len(plan.to_do) - plan.allowed - HELD_SHOWN
    return [*lines, f"  … and {more:,} more"] if more > 0 else lines


def _label(entry: Entry) -> tuple[str, str]:
    """A job by its row and replicate, and where in the sweep it is."""
    axes = ", ".join(f"{name}: {_shown(value)}" for name, value in entry.axes.items())
    return f"{entry.row_id}-{entry.job.replicate}", f"({shortened(axes, AXES_WIDTH)})" if axes else ""


def _time(plan: Plan, now_us: int) -> list[str]:
    """How long it takes, when that is, and what the deadline leaves of it."""
    if not plan.allowed:
        return []
    line = f"Expected time at these limits: {about(plan.expected_s)}"
    if plan.expected_s >= HOUR_FROM_S:
        line += f": done about {_hour(plan.expected_s, now_us)} if started now"
    lines = [f"{line}."]
    if plan.in_time is not None and plan.time_left_s is not None:
        some = f"about {plan.in_time:,} of {count(plan.allowed, 'job')}" if plan.in_time else "not even one job"
        enough = "the job" if plan.allowed == 1 else f"all {plan.allowed:,} jobs"
        what = enough if plan.in_time == plan.allowed else some
        lines.append(f"The deadline, {_hour(plan.time_left_s, now_us)}, leaves time for {what}.")
    return lines


def _hour(seconds: float, now_us: int) -> str:
    """The local time of day after so many seconds, with its day if that is not today."""
    from pipeline.kernel.clock import to_datetime

    return local_hour(to_datetime(now_us + int(seconds * 1e6)), to_datetime(now_us))


def credits_line(plan: Plan, credits_microusd: int) -> str:
    """What the account holds, against what the plan may spend."""
    held, short = f"Credits: {dollars(credits_microusd)}", plan.allowed_cost - credits_microusd
    if not plan.allowed:
        return f"{held}; nothing would be spent."
    what = f"the {count(plan.allowed, 'job')} that may start" if plan.allowed > 1 else "the job that may start"
    if short > 0:
        return f"{held}, {dollars(short)} short of {dollars(plan.allowed_cost)} for {what}."
    return f"{held}, enough for {what}."
