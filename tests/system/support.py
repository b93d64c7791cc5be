"""What the system tests share: small campaigns, a fast configuration, and the books held against the provider's."""

from __future__ import annotations

import functools
import hashlib
import json
import os
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any
from unittest.mock import patch

from PIL import Image

from pipeline.config import Config, load_config
from pipeline.jobs import canonical_json
from pipeline.ledger.fold import State, fold
from pipeline.ledger.job import JobState
from pipeline.ledger.reading import read_events
from pipeline.manifest import Campaign, load_manifest
from pipeline.provider.values import fingerprint
from pipeline.runner import reporting
from pipeline.runner.choice import RunOptions
from pipeline.runner.ending import RunResult
from pipeline.runner.running import run
from pipeline.runner.watching import Watcher
from pipeline.sandbox import SandboxSettings

KEY = "SG_0123456789abcdef"

FAST = {
    "provider.kind": "segmind",
    "budget.cap_usd": "10000",
    "limits.requests_per_minute": "600000",
    "limits.max_in_flight": "60",
    "limits.adaptive": "false",  # a 429 made on purpose says nothing of 600,000 calls a minute
    "polling.expected_s": "0.1",
    "polling.min_interval_s": "0.02",
    "polling.max_interval_s": "0.1",
    "retry.base_delay_s": "0.01",
    "retry.max_delay_s": "0.2",
    "timeouts.submit_s": "0.5",
    "timeouts.read_s": "0.5",
    "timeouts.download_s": "5",
    "in_doubt.settle_after_s": "0.4",
    "in_doubt.wait_s": "8",
    "media.verify": "container",
    "stop.failure_rate": "1",
    "stop.failure_window": "1000",
}
"""A live configuration for a provider on loopback that answers at once."""


def fast_config(url: str, **changes: str) -> Config:
    """`FAST` for the provider at `url`; `changes` are keys with `__` for the dot."""
    flags = FAST | {f"provider.{name}_url": url for name in ("base", "storage", "history")}
    flags |= {name.replace("__", "."): value for name, value in changes.items()}
    return load_config(None, flags, [], environment={})


def quick_provider(**changes: Any) -> SandboxSettings:
    """A provider that takes about a tenth of a second for a small clip."""
    return SandboxSettings(**({"mean_s": 0.1, "clips": "tiny", "hang_s": 1.5} | changes))


def campaign(folder: Path, rows: int, *, ten_seconds: int = 0, count: int = 1) -> Campaign:
    """A campaign of `rows` rows, the first `ten_seconds` of them 10 s long, `count` replicates each."""
    path = folder / "campaign.jsonl"
    lines = [
        {"id": f"row-{n}", "prompt": f"a film of {n} lamps", "duration": 10 if n < ten_seconds else 5, "count": count}
        for n in range(rows)
    ]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return load_manifest(path)


def picture(path: Path, shade: int = 90) -> Path:
    """An image file in the usual shape; each shade is another content."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (64, 36), (shade, 120, 150)).save(path)
    return path


def image_campaign(folder: Path, *shades: int) -> Campaign:
    """A campaign of one row for each shade, that starts from an image of it; a shade of 0 is a row without one."""
    lines = []
    for n, shade in enumerate(shades):
        line = {"id": f"row-{n}", "prompt": f"a film of {n} mugs"}
        if shade:
            line["start_image"] = picture(folder / "pics" / f"{shade}.png", shade).relative_to(folder).as_posix()
        lines.append(line)
    path = folder / "campaign.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return load_manifest(path)


def read_once() -> Any:
    """A patch for checks, in one thread, of ledgers that stay as they are: each is read once."""
    return patch(f"{__name__}.read_events", functools.cache(read_events))


def check_bodies(folder: Path, accepted: list[dict[str, Any]]) -> None:
    """What the provider has is, byte for byte, what the ledger says was sent, and no hash ever left in a body."""
    recorded = {event.request for event in read_events(folder / "ledger") if event.request}
    for request in accepted:
        assert canonical_json(request["body"]).decode() in recorded
        assert str(request["body"].get("start_image", "http://")).startswith("http://")


def report_once() -> Any:
    """A patch, while which the report of a run that goes on is written only where there is none yet.

    A night of hours in virtual time would write one for each of their minutes, and do little else.
    """
    write = reporting.write_report

    def once(folder: Path, *arguments: Any) -> None:
        if not (folder / "report" / "summary.json").exists():
            write(folder, *arguments)

    return patch.object(reporting, "write_report", once)


async def run_once(
    made: Campaign, config: Config, folder: Path, *, watcher: Watcher | None = None, **options: Any
) -> RunResult:
    """One run, as the command line would do it."""
    return await run(made, config, folder, key=KEY, options=RunOptions(**options), watcher=watcher)


async def run_until_done(made: Campaign, config: Config, folder: Path, *, most: int = 60) -> list[RunResult]:
    """Run again and again, as a person would after each cure, until nothing is left to do."""
    results: list[RunResult] = []
    while not results or results[-1].exit_code not in (0, 1):
        assert len(results) < most, f"still not done after {most} runs: {results[-1].summary}"
        results.append(await run_once(made, config, folder))
    return results


def durable_state(folder: Path) -> State:
    """What the ledger on the disk says."""
    return fold(read_events(folder / "ledger")) if (folder / "ledger").is_dir() else State()


def check_liability(folder: Path, accepted: list[dict[str, Any]]) -> None:
    """At every instant, the durable ledger's liabilities cover all that the provider has accepted and not failed."""
    covered: Counter[bytes] = Counter()
    events = read_events(folder / "ledger")
    bodies = {event.job_id: fingerprint(event.request) for event in events if event.request}
    for record in fold(events).jobs.values():
        covered[bodies[record.job_id] or b""] += record.liability_microusd
    exposed: Counter[bytes] = Counter()
    for request in accepted:
        if request["status"] != "FAILED":
            exposed[fingerprint(request["body"]) or b""] += request["cost_microusd"]
    uncovered = {body: amount - covered[body] for body, amount in exposed.items() if amount > covered[body]}
    assert not uncovered, f"accepted and not covered by the ledger: {uncovered}"


def check_books(folder: Path, invoice: Mapping[str, Any]) -> None:
    """At rest the ledger explains the invoice: the same requests, each to the micro-dollar, and the same total."""
    events = read_events(folder / "ledger")
    state = fold(events)
    ours = {}
    for event in events:
        if event.event.value == "posted":
            ours[state.jobs[event.job_id or ""].request_id] = event.cost_microusd
    theirs = {charge["request_id"]: charge["cost_microusd"] for charge in invoice["charges"]}
    assert ours == theirs
    assert state.books.posted == invoice["total_microusd"]


def check_nothing_bought_twice(made: Campaign, invoice: Mapping[str, Any]) -> None:
    """Each body was billed at most as often as the campaign asks for it."""
    wanted = Counter(fingerprint(dict(job.params)) for job in made.jobs)
    billed = Counter(fingerprint(charge["request"]) for charge in invoice["charges"])
    assert not billed - wanted


def check_videos(folder: Path, accepted: list[dict[str, Any]]) -> None:
    """Every stored video is the very file that the provider made for its request."""
    made = {request["request_id"]: request["sha256"] for request in accepted}
    state = durable_state(folder)
    for record in state.in_state(JobState.STORED):
        data = (folder / (record.path or "")).read_bytes()
        assert hashlib.sha256(data).hexdigest() == record.sha256 == made[record.request_id or ""]
    final = {path.name for path in (folder / "videos").iterdir()}
    assert final == {Path(record.path or "").name for record in state.in_state(JobState.STORED)}


Check = Callable[[Path, Mapping[str, Any]], None]


def worker_pids() -> list[int]:
    """The workers of a Dask cluster that this process has started and that live, in the order of their pids."""
    return sorted(int(path.parent.name) for path in Path("/proc").glob("[0-9]*/stat") if _is_own_worker(path))


def _is_own_worker(stat: Path) -> bool:
    try:
        parent = stat.read_text().rsplit(")", 1)[1].split()[1]
        command = stat.with_name("cmdline").read_bytes()  # empty, once the process is dead
    except OSError:
        return False
    return int(parent) == os.getpid() and b"pipeline.media.cluster.worker" in command
