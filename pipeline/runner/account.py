"""What the account holds, asked without a run."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from pathlib import Path

from pipeline.config import Config
from pipeline.kernel.clock import SystemClock
from pipeline.kernel.errors import ErrorClass, InputError, MachineError, Reaction
from pipeline.kernel.usd import MicroUsd
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


def _copy_sandbox_memory(folder: Path, copy: Path) -> None:
    """An embedded sandbox that is only asked works on a copy: a run may hold the original."""
    (copy / SANDBOX_FOLDER).mkdir()
    with contextlib.suppress(FileNotFoundError):
        shutil.copyfile(folder / SANDBOX_FOLDER / "journal.jsonl", copy / SANDBOX_FOLDER / "journal.jsonl")
