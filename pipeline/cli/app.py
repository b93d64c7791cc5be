"""The verbs, gathered."""

from __future__ import annotations

import typer

from pipeline.cli import export, plan, reconcile, rehearse, report, resolve, run, sandbox, schema, status

app = typer.Typer(
    name="kling-batch",
    help="Turn a manifest into videos, under a hard budget cap: resumable, and every cent explained.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)

app.command()(plan.plan)
app.command(cls=run.RunCommand)(run.run)
app.command()(rehearse.rehearse)
app.command()(status.status)
app.command()(report.report)
app.command()(export.export)
app.command()(reconcile.reconcile)
app.command()(resolve.resolve)
app.command()(sandbox.sandbox)
app.command()(schema.schema)
