"""A webhook is told how a run ended: after the bookkeeping, once, and with nothing that is a secret."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from nights import KEY, AtStart, Night, now_s
from support import campaign
from virtual_time import run_virtually

from pipeline import notify
from pipeline.engine.stopping import StopReason
from pipeline.kernel.logger import LOGGER
from pipeline.ledger.fold import RunRecord
from pipeline.ledger.reading import read_events
from pipeline.manifest import Campaign
from pipeline.runner.ending import RunResult
from pipeline.runner.watching import LiveRun, Watcher

SECRET_PATH = "/services/T0123/B4567/verysecretpath"
Reply = Callable[[web.Request], Awaitable[web.StreamResponse]]


async def taken(_request: web.Request) -> web.StreamResponse:
    return web.Response(text="ok")


class Hook:
    """A receiver on this machine, and a night that it is told of. `reply` is what it answers."""

    def __init__(self, folder: Path, reply: Reply = taken, **provider: Any) -> None:
        self.night = Night(folder, **provider)
        self.heard: list[dict[str, Any]] = []
        self.last_events: list[str] = []
        self._reply = reply

    async def __aenter__(self) -> Hook:
        await self.night.__aenter__()
        app = web.Application()
        app.router.add_post(SECRET_PATH, self._hear)
        self._runner = web.AppRunner(app, access_log=None)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}{SECRET_PATH}"
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._runner.cleanup()
        await self.night.__aexit__()

    async def _hear(self, request: web.Request) -> web.StreamResponse:
        assert KEY not in str(request.headers)
        self.heard.append(json.loads(await request.read()))
        self.last_events.append(read_events(self.night.folder / "ledger")[-1].event.value)
        assert (self.night.folder / "report" / "summary.json").is_file()
        return await self._reply(request)

    async def run(self, made: Campaign, watcher: Watcher | None = None, **changes: str) -> RunResult:
        return await self.night.run(made, self.night.config(**changes), watcher, self.url)

    def events(self) -> list[str]:
        return [message["event"] for message in self.heard]

    def check_secrets(self) -> None:
        """Neither the address nor the key is in any file, and the key in no message."""
        for path in self.night.folder.rglob("*"):
            data = path.read_bytes() if path.is_file() else b""
            assert b"verysecretpath" not in data, path
        assert KEY not in json.dumps(self.heard)


def test_the_end_of_a_run_is_told_once_and_after_the_books(tmp_path: Path) -> None:
    """A text for people, the facts for programs; the run that finds nothing to do says nothing."""

    async def main() -> None:
        async with Hook(tmp_path) as hook:
            made = campaign(tmp_path, 2)
            result = await hook.run(made, budget__cap_usd="50")
            assert (result.exit_code, (await hook.run(made)).exit_code, hook.last_events) == (0, 0, ["run_ended"])
            text = "campaign: 2 of 2 stored, $3.50 of $50.00 spent, exit 0"
            assert hook.heard[0] == {
                "text": text,
                "content": text,
                "name": "campaign",
                "run_directory": str(hook.night.folder),
                "event": "ended",
                "exit_code": 0,
                "stopped_by": None,
                "message": None,
                "stored": 2,
                "failed": 0,
                "in_doubt": 0,
                "pending": 0,
                "posted_usd": "3.50",
                "cap_usd": "50.00",
                "wall_s": result.summary["wall_s"],
            }
            hook.check_secrets()

    run_virtually(main())


def test_a_stop_is_told_with_its_reason(tmp_path: Path) -> None:
    """The cap lets one of three through."""

    async def main() -> None:
        async with Hook(tmp_path) as hook:
            assert (await hook.run(campaign(tmp_path, 3), budget__cap_usd="2")).exit_code == 3
            (message,) = hook.heard
            assert (message["event"], message["stopped_by"], message["pending"]) == ("stopped", "cap", 2)
            assert message["text"].startswith("campaign: 1 of 3 stored, $1.75 of $2.00 spent, exit 3 (cap): the cap of")

    run_virtually(main())


def test_trouble_is_told_at_most_every_ten_minutes(tmp_path: Path) -> None:
    """A run that a cron starts every minute and that the account stops each time; when it is cured, that is told."""

    async def main() -> None:
        async with Hook(tmp_path, faults={"submit_401": 1.0}, fault_limit={"submit_401": 12}) as hook:
            made = campaign(tmp_path, 1)
            told_s = []
            for _ in range(13):
                before = len(hook.heard)
                code = (await hook.run(made)).exit_code
                told_s += [now_s()] * (len(hook.heard) - before)
                await hook.night.clock.sleep(60)
            assert code == 0
            assert hook.events() == ["trouble", "trouble", "ended"]
            assert 600 <= told_s[1] - told_s[0] < 700
            hook.check_secrets()

    run_virtually(main())


def test_no_secret_is_told_or_logged_whoever_says_it(tmp_path: Path) -> None:
    """Should a message ever hold the key, or a line of the log the address, they are struck out."""

    async def main() -> None:
        async with Hook(tmp_path) as hook:

            def blab(live: LiveRun) -> None:
                logging.getLogger(LOGGER).info("posting to %s", hook.url)
                live.context.stopping.stop(StopReason.LIMIT, f"the key is {KEY}")

            assert (await hook.run(campaign(tmp_path, 1), AtStart(blab))).exit_code == 3
            assert hook.heard[0]["message"] == "the key is (the key)"
            assert KEY not in json.dumps(hook.heard)
            log = (hook.night.folder / "run.log").read_text()
            assert "posting to [key]" in log
            assert "verysecretpath" not in log

    run_virtually(main())


async def refused(_request: web.Request) -> web.StreamResponse:
    return web.Response(status=500, text="no")


async def elsewhere(_request: web.Request) -> web.StreamResponse:
    return web.Response(status=307, headers={"Location": SECRET_PATH})


async def silent(_request: web.Request) -> web.StreamResponse:
    await asyncio.sleep(3600)
    return web.Response()


@pytest.mark.parametrize(
    ("reply", "logged"),
    [(refused, "it answered 500"), (elsewhere, "it answered 307"), (silent, "TimeoutError")],
)
def test_a_webhook_that_fails_is_tried_twice_and_touches_nothing(tmp_path: Path, reply: Reply, logged: str) -> None:
    """No redirect is followed, nobody is waited for longer than twice ten seconds, and the log has no address."""

    async def main() -> None:
        async with Hook(tmp_path, reply) as hook:
            ended_s: list[float] = []

            class End(Watcher):
                def ended(self) -> None:
                    ended_s.append(now_s())

            assert (await hook.run(campaign(tmp_path, 1), End())).exit_code == 0
            assert (len(hook.heard), now_s() - ended_s[0] < 25) == (2, True)
            log = (hook.night.folder / "run.log").read_text()
            assert log.count(f"the webhook was not told: {logged}") == 2
            hook.check_secrets()

    run_virtually(main())


def test_a_person_in_a_hurry_waits_for_no_webhook(tmp_path: Path) -> None:
    """After the second interrupt it gets one second."""

    async def main() -> None:
        async with Hook(tmp_path, silent) as hook:
            left_s: list[float] = []

            def leave(live: LiveRun) -> None:
                def twice() -> None:
                    left_s.append(now_s())
                    live.context.stopping.interrupt()
                    live.context.stopping.interrupt()

                asyncio.get_running_loop().call_later(60, twice)

            assert (await hook.run(campaign(tmp_path, 1), AtStart(leave))).exit_code == 130
            assert (hook.events(), now_s() - left_s[0] < 3) == (["stopped"], True)

    run_virtually(main())


@pytest.mark.parametrize(
    ("code", "by", "event"),
    [
        (0, None, "ended"),
        (1, None, "ended"),
        (3, "cap", "stopped"),
        (3, "canary", "stopped"),
        (3, "failure_rate", "trouble"),
        (4, "account", "trouble"),
        (5, None, "trouble"),
        (5, "cap", "trouble"),
        (6, "machine", "trouble"),
        (130, "interrupted", "stopped"),
    ],
)
def test_what_an_end_is_told_as(code: int, by: str | None, event: str) -> None:
    """The breaker, the account, the machine and money in doubt are trouble."""
    assert notify.event_of({"exit_code": code, "stopped_by": by}) == event


def test_only_trouble_that_was_told_silences_trouble() -> None:
    """A run without a webhook, one that ended well and one that was killed have told nothing."""

    def ended(minute: int, code: int, *, tells: bool = True) -> RunRecord:
        return RunRecord(0, {"tells": tells}, minute * 60_000_000, {"exit_code": code})

    assert notify.is_too_soon([ended(0, 4)], 9 * 60_000_000)
    assert not notify.is_too_soon([ended(0, 4)], 10 * 60_000_000)
    assert not notify.is_too_soon([ended(0, 4), ended(5, 4)], 11 * 60_000_000)
    assert notify.is_too_soon([ended(0, 4), ended(10, 4)], 11 * 60_000_000)
    for silent_one in (ended(0, 4, tells=False), ended(0, 0), RunRecord(0, {"tells": True})):
        assert not notify.is_too_soon([silent_one], 60_000_000)


def test_a_strangers_words_call_nobody_and_fit() -> None:
    """A provider's message can neither mention a channel nor break the text, however long it is."""
    summary = {"stored": 0, "jobs": 1, "failed": 1, "in_doubt": 0, "posted_usd": "0.00", "cap_usd": "1.00"}
    made = notify.notice("n", "o", summary | {"message": "<!channel> @everyone \ud83d" + "x" * 9_000, "exit_code": 4})
    assert made["text"].startswith("n: 0 of 1 stored, 1 failed, $0.00 of $1.00 spent, exit 4: ‹!channel› ＠everyone")
    assert len(made["text"]) == notify.LONGEST_TEXT
    assert json.loads(notify.as_json(made))["message"] == made["message"]
