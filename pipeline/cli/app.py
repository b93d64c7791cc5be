"""The verbs, gathered. Each is loaded when it is called, so that no verb waits for the others."""

from __future__ import annotations

from importlib import import_module
from typing import Any

import click

from pipeline.cli import INTERRUPTED

VERBS = {
    "plan": "Show what a run would do and what it would cost.",
    "run": "Make what the manifest asks for.",
    "rehearse": "Play a whole run in seconds: no request leaves, no money moves.",
    "status": "Show how a run directory stands, beside a live run or at rest.",
    "report": "Write the report files again from the ledger.",
    "export": "Export the stored videos as a data set.",
    "reconcile": "Hold the ledger against the provider's history.",
    "resolve": "Record your word on an attempt in doubt.",
    "sandbox": "Serve the provider's double on this machine: no key, no money.",
    "schema": "Print the JSON Schema of manifests or configs, for editors.",
}
"""Each verb's line in the help of all: the first sentence of its own."""


def load_verb(name: str) -> click.Command:
    """The verb itself, from the module that has its name."""
    command: click.Command = getattr(import_module(f"pipeline.cli.{name}"), name)
    return command


class Verbs(click.Group):
    """A group that knows the lines of its verbs, and loads the one that is called."""

    def list_commands(self, _ctx: click.Context) -> list[str]:
        """In the order of their use, not of the alphabet."""
        return list(self.commands)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        name, _, rest = super().resolve_command(ctx, args)
        return name, None if name is None else load_verb(name), rest

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            # Click would call it 1, as if jobs had failed.
            raise click.exceptions.Exit(INTERRUPTED) from None


app = Verbs(
    "kling-batch",
    [click.Command(name, short_help=line) for name, line in VERBS.items()],
    help="Turn a manifest into videos, under a hard budget cap: resumable, and every cent explained.",
    context_settings={"help_option_names": ["-h", "--help"], "show_default": True},
)
click.version_option(package_name="kling-batch", message="%(prog)s %(version)s")(app)
