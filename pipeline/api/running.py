"""From a manifest to videos: what a run would do, the run, and its rehearsal."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Unpack

from pipeline.api.asked import AskedOfRun, options_of, place_of
from pipeline.api.configuring import AnyConfig, AskedOfConfig, key_of, load_config
from pipeline.api.loops import in_own_loop, is_in_loop, run_to_end
from pipeline.api.reading import AnyManifest, load_manifest
from pipeline.kernel.errors import InputError, MachineError
from pipeline.kernel.usd import MicroUsd

if TYPE_CHECKING:
    from pipeline.config import Config
    from pipeline.difference import Difference
    from pipeline.engine.canary import Trial
    from pipeline.forecast import Plan
    from pipeline.ledger.fold import State
    from pipeline.ledger.reading import Reader
    from pipeline.manifest import Campaign
    from pipeline.rehearsal import Night, Scenario
    from pipeline.runner.choice import RunOptions
    from pipeline.runner.ending import RunResult
    from pipeline.runner.watching import Watcher

LONGEST_MEAN_S = 7_200
"""Longer generations are not rehearsed: the provider forgets a request after an hour, so asking would never end."""

MOST_SIGMA = 3
"""With a larger spread, hardly two generations take alike, and a rehearsed night says nothing of a real one."""


@dataclass(frozen=True, slots=True)
class Prepared:
    """A manifest, a configuration and a run directory that fit together: all is checked, and nothing is sent yet.

    `state` is what the directory's ledger said when it was prepared, until it is run; `again` reads it anew.
    """

    campaign: Campaign
    config: Config
    folder: Path
    options: RunOptions
    state: State
    address: str | None = None
    """Where in object storage the run directory is; None where it is on the disk alone."""
    known: Reader | None = None
    """The reader that `state` is from. A run goes on from there, if nobody else has written since."""

    def again(self) -> Prepared:
        """The same, with what the ledger says now.

        Raises:
            RunDirectoryError: it is damaged.
        """
        from pipeline.looking.view import read_ledger

        known = read_ledger(self.folder)
        return dataclasses.replace(self, state=known.state, known=known)

    def plan(self) -> Plan:
        """What the run would do and cost; amounts in micro-dollars.

        Raises:
            InputError: an id that the manifest does not have, or no cap for a live run.
        """
        from pipeline.runner.choice import plan_run

        return plan_run(self.campaign, self.config, self.state, self.options, live=self._is_live())

    def changes(self) -> Difference | None:
        """What became of the manifest since the directory's last run; None if there was none.

        Raises:
            RunDirectoryError: the rows of the last run cannot be read.
        """
        from pipeline.planning import changes_since

        return changes_since(self.folder, self.campaign, self.config, self.state)

    def canary(self) -> Trial:
        """The jobs that go first, and those that are proven; without any job where no canary is asked for."""
        from pipeline.runner.choice import trial_of

        return trial_of(self.campaign, self.config, self.state, self.options)

    async def credits(self) -> MicroUsd:
        """What the account holds: one free call, the only one that can be made before a run.

        Raises:
            InputError: there is no key, it was refused, or the account has nothing to say.
            MachineError: no answer came.
        """
        from pipeline.runner.account import ask_credits

        return await ask_credits(self.config, self.folder, key_of(self.config))

    def write_jobs(self, path: Path | str, plan: Plan) -> None:
        """Write every job of a plan, its prompt filled in, as a table to a `.csv` or `.parquet` file.

        Raises:
            InputError: the file has another ending.
            MachineError: the disk refused.
        """
        from pipeline.planning import write_expansion

        path = Path(path)
        check_table(path)
        write_expansion(path, self.campaign, self.config, plan, self.state, self.options, live=self._is_live())

    def _is_live(self) -> bool:
        """Whether a run holds the directory now. Another verb may hold it as well, but awaits no answer."""
        from pipeline.ledger.lock import lock_holder
        from pipeline.looking.view import run_of

        return run_of(self.state, lock_holder(self.folder / "ledger")) is not None

    def secrets(self) -> tuple[str, str]:
        """What no screen may show: a live run's key and the webhook's address, each empty where there is none.

        Raises:
            InputError: a secret that the run needs is not there, or is malformed.
        """
        from pipeline.config import read_webhook

        return key_of(self.config) if self.config.is_live else "", read_webhook(self.config) or ""

    async def run(self, watcher: Watcher | None = None) -> RunResult:
        """Bring the run directory to what the manifest says; see the function `run`."""
        from pipeline.api.shield import Shielded
        from pipeline.config import read_webhook
        from pipeline.runner.running import run

        key, webhook = key_of(self.config), read_webhook(self.config)
        if self.address is not None:
            _attach(self.folder, self.address)
        return await run(
            self.campaign,
            self.config,
            self.folder,
            key=key,
            options=self.options,
            watcher=Shielded(watcher) if watcher is not None else None,
            webhook=webhook,
            known=self.known,
        )

    def after_canary(self, result: RunResult) -> Prepared | None:
        """What is to be run once a person agrees to the canary; None where the run did not stop for that.

        Raises:
            RunDirectoryError: the ledger is damaged.
        """
        if not self.options.canary_approve or result.summary.get("stopped_by") != "canary":
            return None
        after = self.again()
        tried = after.canary()
        if not tried.is_passed:
            return None
        begun_us = after.state.runs[-1].started_us
        started = sum(record.reserved_us >= begun_us for record in tried.proven)
        limit = None if self.options.limit is None else max(1, self.options.limit - started)
        return dataclasses.replace(after, options=dataclasses.replace(self.options, canary_approve=False, limit=limit))

    def rehearse(
        self,
        *,
        faults: Mapping[str, float] | None = None,
        seed: int = 1,
        mean_s: float | None = None,
        sigma: float = 0.3,
        watcher: Watcher | None = None,
    ) -> Night:
        """Play the run in virtual time; see the function `rehearse`."""
        from pipeline import rehearsal
        from pipeline.api.shield import Shielded

        scenario = rehearsal.Scenario(seed, mean_s, sigma, dict(faults or {}))
        _check_scenario(scenario, self.config)
        told = None if watcher is None else Shielded(watcher)
        return in_own_loop(
            lambda: rehearsal.rehearse(
                self.campaign, self.config, self.folder, scenario=scenario, options=self.options, watcher=told
            )
        )

    def draw(self, night: Night, path: Path | str) -> None:
        """Draw a rehearsed night to an `.svg` file.

        Raises:
            MachineError: the disk refused.
        """
        from pipeline.kernel.files import write_file
        from pipeline.rehearsal.chart import night_svg

        try:
            write_file(Path(path), night_svg(self.campaign.name, night).encode())
        except OSError as error:
            raise MachineError(f"{path} cannot be written: {error.strerror}") from None


def prepare(
    manifest: AnyManifest,
    config: AnyConfig = None,
    *,
    out: Path | str | None = None,
    canary_approve: bool = False,
    limit: int | None = None,
    ids: Iterable[str] | None = None,
    part: str | None = None,
    order: str | None = None,
    retry_failed: bool | Iterable[str] = False,
    **said: Unpack[AskedOfConfig],
) -> Prepared:
    """Bring a manifest, a configuration and a run directory together and check all of it. Nothing is sent or written.

    Args:
        manifest: its file, or what `load_manifest` made of it.
        config: a file, keys and values, or a configuration.
        out: the run directory; `outputs/<name>` without it.
        canary_approve: stop when the canary is passed: a person decides about the rest.
        limit: start at most so many jobs.
        ids: only these rows or jobs; None for all.
        part: only one part of the manifest, like `"2/5"`, in a run directory of its own.
        order: in which order jobs start: `balanced`, `file` or `cheapest`; the manifest's own without it.
        retry_failed: try failed jobs anew: True for all, or the names of error classes.
        said: what else is said of the configuration, by name, as `load_config` takes it: `budget_usd` and the like.

    Raises:
        ManifestError: every mistake in the manifest.
        InputError: anything else that is asked for and cannot be.
        RunDirectoryError: the directory is damaged, or belongs to another provider.
    """
    from pipeline.looking.view import read_ledger
    from pipeline.runner.choice import run_address, run_folder

    used = load_config(config, **said)
    if canary_approve and not used.canary.jobs:
        raise InputError("--canary-approve needs a canary: say --canary N. Nothing was sent.")
    options = options_of(limit, ids, retry_failed, order, canary_approve=canary_approve)
    campaign, place = _campaign(manifest, part), place_of(out)
    folder, address = run_folder(used, campaign, place), run_address(used, campaign, place)
    if address is not None:
        from pipeline.mirror.mirror import refresh

        refresh(folder, address)
    known = read_ledger(folder)
    _check_directory(folder, campaign, used, known.state)
    return Prepared(campaign, used, folder, options, known.state, address, known)


def _campaign(manifest: AnyManifest, part: str | None) -> Campaign:
    """The manifest as it was read, or the part of it that is asked for."""
    from pipeline.manifest import Campaign
    from pipeline.manifest.parts import parse_part, part_of

    wanted = None if part is None else parse_part(part)
    campaign = manifest if isinstance(manifest, Campaign) else load_manifest(manifest)
    return campaign if wanted is None else part_of(campaign, wanted)


def _check_directory(folder: Path, campaign: Campaign, config: Config, state: State) -> None:
    """Refuse a run directory that is another campaign's, provider's or part's."""
    from pipeline.runner.continuity import check_folder, check_ids, check_part, check_provider

    check_folder(folder, campaign)
    check_provider(state, config, folder)
    check_part(folder, campaign, state)
    check_ids(folder, campaign, state)


def _check_scenario(scenario: Scenario, config: Config) -> None:
    """Refuse a rehearsal that the sandbox cannot play, or that would say nothing of a real night."""
    from pipeline.sandbox import SandboxSettings

    mean_s, sigma = scenario.mean_s, scenario.sigma
    try:
        # The sandbox's own check, made before anything is played.
        SandboxSettings(faults=scenario.faults, mean_s=1.0 if mean_s is None else mean_s, sigma=sigma)
    except ValueError as error:
        raise InputError(str(error)) from None
    name, asked_s = ("polling.expected_s", config.polling.expected_s) if mean_s is None else ("mean_s", mean_s)
    if asked_s > LONGEST_MEAN_S:
        raise InputError(f"{name} must be at most {LONGEST_MEAN_S:,} in a rehearsal, not {asked_s:g}")
    if sigma > MOST_SIGMA:
        raise InputError(f"sigma must be at most {MOST_SIGMA} in a rehearsal, not {sigma:g}; 0.3 is the usual")


def _attach(folder: Path, address: str) -> None:
    from pipeline.mirror.places import attach

    try:
        attach(folder, address)
    except OSError as error:
        raise MachineError(f"{folder} cannot be written: {error.strerror}. Nothing was sent.") from None


def plan(
    manifest: AnyManifest,
    config: AnyConfig = None,
    **asked: Unpack[AskedOfRun],
) -> Plan:
    """What a run would do and cost; amounts in micro-dollars. Nothing is sent or written, and no key is needed.

    Args:
        asked: as in `prepare`.

    Raises:
        InputError: what a run would be refused for, less the key.
    """
    return prepare(manifest, config, **asked).plan()


async def run(
    manifest: AnyManifest,
    config: AnyConfig = None,
    *,
    watcher: Watcher | None = None,
    **asked: Unpack[AskedOfRun],
) -> RunResult:
    """Bring a run directory to what a manifest says. Always resumes: what is there already costs nothing again.

    To call it is to agree to the bill: **a live run spends real money and asks nobody**, up to the cap, which must be
    said (`budget_usd`, or `budget.cap_usd`). Ctrl-C stops it gracefully where signals reach it: once, nothing new
    starts; twice, what runs is left to the next run. Cancelling the task is like being killed: nothing is lost, and
    what was under way is settled by the next run.

    Args:
        watcher: told what happens; one that raises an exception is told no more, and the run goes on.
        asked: as in `prepare`.

    Returns:
        How it ended: `exit_code` as the command's, `summary` as summary.json. Trouble of jobs is there, not raised.

    Raises:
        InputError: nothing was sent.
        MachineError: this machine failed before anything began.
    """
    prepared = prepare(manifest, config, **asked)
    prepared.plan()  # whatever a plan is refused for is found before the directory is touched
    return await prepared.run(watcher)


def run_sync(
    manifest: AnyManifest,
    config: AnyConfig = None,
    *,
    watcher: Watcher | None = None,
    **asked: Unpack[AskedOfRun],
) -> RunResult:
    """`run`, for programs that are not asynchronous; it returns when the run is over.

    Raises:
        InputError: nothing was sent; an event loop is running here, for example.
        MachineError: this machine failed before anything began.
    """
    if is_in_loop():
        raise InputError("an event loop is running here, as in a notebook: write `await run(…)`. Nothing was sent.")
    return run_to_end(run(manifest, config, watcher=watcher, **asked))


def rehearse(
    manifest: AnyManifest,
    config: AnyConfig = None,
    *,
    faults: Mapping[str, float] | None = None,
    seed: int = 1,
    mean_s: float | None = None,
    sigma: float = 0.3,
    watcher: Watcher | None = None,
    **asked: Unpack[AskedOfRun],
) -> Night:
    """Play a whole run against the sandbox in virtual time: seconds for a night. Nothing is sent, no money moves.

    It begins with a copy of the run directory, if there is one, so that it plays what is left.

    Args:
        faults: what goes wrong, and how often (0 to 1): `kling-batch sandbox --list-faults` names all.
        seed: of times and faults: the same gives the same night.
        mean_s: mean time of a generation in seconds; what the configuration expects without it.
        sigma: spread of the generation times.
        watcher: told what happens, in virtual time.
        asked: as in `prepare`.

    Raises:
        InputError: what a run would be refused for, or a fault that there is not.
    """
    prepared = prepare(manifest, config, **asked)
    return prepared.rehearse(faults=faults, seed=seed, mean_s=mean_s, sigma=sigma, watcher=watcher)


def check_table(path: Path) -> None:
    """Refuse a file whose name does not end like a table's.

    Raises:
        InputError: it has another ending.
    """
    from pipeline.report.expansion import FORMATS

    if path.suffix.lower() not in FORMATS:
        raise InputError(f"--expand: {path} ends neither in {' nor in '.join(FORMATS)}")
