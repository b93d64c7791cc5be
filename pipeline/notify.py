"""Tells a webhook how a run ended: one JSON POST, after the bookkeeping. Slack, Discord and plain receivers take it.

The address is a secret: it is never written or logged. Whatever goes wrong here is logged and touches nothing.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from typing import Any

import aiohttp
from yarl import URL

from pipeline.kernel.clock import Clock
from pipeline.kernel.logger import LOGGER
from pipeline.ledger.fold import RunRecord

TRIES = 2
PAUSE_S = 2.0
TIMEOUT_S = 10.0
"""For a whole try, the look-up of the name included."""

QUIET_US = 600_000_000
"""The least time between two messages of trouble: a run that is started over and over must not flood anybody."""

LONGEST_TEXT = 1_500
"""Discord takes 2,000 characters."""

_TROUBLES = (4, 5, 6)
"""Exit codes that somebody should hear of: the account, money in doubt or unfetched, the machine."""

_FACTS = ("exit_code", "stopped_by", "message", "stored", "failed", "in_doubt", "pending")
_MONEY_AND_TIME = ("posted_usd", "cap_usd", "wall_s")

# Characters in a provider's words that Slack and Discord would take for a mention or a link.
_NO_MENTION = str.maketrans({"<": "‹", ">": "›", "@": "＠"})


def event_of(outcome: Mapping[str, Any]) -> str:
    """What a run's end is told as: `trouble`, `stopped` or `ended`, by its `exit_code` and `stopped_by`."""
    if outcome.get("exit_code") in _TROUBLES or outcome.get("stopped_by") == "failure_rate":
        return "trouble"
    return "stopped" if outcome.get("stopped_by") else "ended"


def is_too_soon(earlier: Sequence[RunRecord], now_us: int) -> bool:
    """Whether trouble was told so recently, by the runs before this one, that more of it is not told now."""
    told_us: int | None = None
    for run in earlier:
        if run.facts.get("tells") and run.ended_us is not None and event_of(run.outcome) == "trouble":
            told_us = run.ended_us if told_us is None or run.ended_us - told_us >= QUIET_US else told_us
    return told_us is not None and 0 <= now_us - told_us < QUIET_US


def notice(name: str, run_directory: str, summary: Mapping[str, Any]) -> dict[str, Any]:
    """The message: how a run ended, as a text for people and as facts for programs. `summary` is summary.json's."""
    text = _text(name, summary)
    return {
        "text": text,  # Slack
        "content": text,  # Discord
        "name": name,
        "run_directory": run_directory,
        "event": event_of(summary),
        **{fact: summary.get(fact) for fact in (*_FACTS, *_MONEY_AND_TIME)},
    }


def _text(name: str, summary: Mapping[str, Any]) -> str:
    jobs = f"{summary['stored']:,} of {summary['jobs']:,} stored"
    jobs += "".join(
        f", {summary[fact]:,} {word}"
        for fact, word in (("failed", "failed"), ("in_doubt", "in doubt"), ("missing", "stored but not on the disk"))
        if summary.get(fact)
    )
    money = f"${summary['posted_usd']} of ${summary['cap_usd']} spent"
    why = f" ({summary['stopped_by']})" if summary.get("stopped_by") else ""
    message = f": {summary['message']}" if summary.get("message") else ""
    text = f"{name}: {jobs}, {money}, exit {summary.get('exit_code')}{why}{message}".translate(_NO_MENTION)
    return text if len(text) <= LONGEST_TEXT else f"{text[: LONGEST_TEXT - 1]}…"


def as_json(message: Mapping[str, Any]) -> bytes:
    """The message as it is sent: in ASCII, so that half of a surrogate pair in a provider's words does no harm."""
    return json.dumps(message).encode()


async def send(url: str, body: bytes, clock: Clock) -> bool:
    """POST to the webhook, twice at most; whether it was taken. Nothing is raised but a cancellation."""
    for tries in range(TRIES):
        if tries:
            await clock.sleep(PAUSE_S)
        problem = await _post(url, body)
        if problem is None:
            return True
        logging.getLogger(LOGGER).warning("the webhook was not told: %s", problem)
    return False


async def _post(url: str, body: bytes) -> str | None:
    """One try; what went wrong, in words that do not hold the address."""
    headers = {"Content-Type": "application/json", "User-Agent": "kling-batch"}
    try:
        async with (
            aiohttp.ClientSession(
                timeout=aiohttp.ClientTimeout(total=TIMEOUT_S), cookie_jar=aiohttp.DummyCookieJar(), trust_env=False
            ) as session,
            session.post(URL(url, encoded=True), data=body, headers=headers, allow_redirects=False) as reply,
        ):
            return None if 200 <= reply.status < 300 else f"it answered {reply.status}"
    except Exception as error:
        # Its text may hold the address.
        return type(error).__name__
