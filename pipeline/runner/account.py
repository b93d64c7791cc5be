"""What the account holds, asked without a run."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from collections.abc import Iterable
from pathlib import Path

from pipeline.config import Config
from pipeline.engine.context import RunContext
from pipeline.jobs import Job
from pipeline.kernel.clock import SystemClock
from pipeline.kernel.errors import ErrorClass, InputError, MachineError, Reaction
from pipeline.kernel.usd import MicroUsd, dollars
from pipeline.provider.replies import Refused
from pipeline.runner.opening import SANDBOX_FOLDER, open_provider


async def ask_credits(config: Config, folder: Path, key: str) -> MicroUsd:
    """What the account holds: one free call, and proof that the key is good. The run directory stays untouched.

    Raises:
        InputError: the key was refused, or the account has nothing to say.
        MachineError: no answer came.
    """
    with tempfile.TemporaryDirectory() as name:
        _copy_sandbox_memory(folder, Path(name))
        async with open_provider(config, Path(name), key, SystemClock(), looking=True) as provider:
            reply = await provider.client.credits()
    if isinstance(reply, int):
        return reply
    if isinstance(reply, Refused) and reply.error_class.reaction is Reaction.STOP_ACCOUNT:
        refused = reply.error_class is ErrorClass.UNAUTHORIZED
        said = "the key was refused" if refused else "the provider refused to show the account's credits"
        raise InputError(f"--check-account: {said}: {reply.message.rstrip('. ')}")
    raise MachineError(f"--check-account: the account could not be asked: {reply.message.rstrip('. ')}; try again")


def lack_of_credits(context: RunContext, balance: int, jobs: Iterable[Job]) -> str | None:
    """What a person should know before jobs are started whose cost, as far as the cap lets them, the account lacks."""
    free = context.free
    if balance >= free:
        return None
    cost = number = 0
    for job in jobs:
        quote = context.quote(job)
        if cost + quote <= free:
            cost, number = cost + quote, number + 1
    if balance >= cost:
        return None
    what = f"the {number:,} jobs that may start" if number > 1 else "the job that may start"
    return f"credits: {dollars(balance)}, {dollars(cost - balance)} short of {dollars(cost)} for {what}"


def _copy_sandbox_memory(folder: Path, copy: Path) -> None:
    """An embedded sandbox that is only asked works on a copy: a run may hold the original."""
    (copy / SANDBOX_FOLDER).mkdir()
    with contextlib.suppress(FileNotFoundError):
        shutil.copyfile(folder / SANDBOX_FOLDER / "journal.jsonl", copy / SANDBOX_FOLDER / "journal.jsonl")
