"""What results are made of, for annotations. Nothing of it is needed to run; to import it loads much."""

from pipeline.config import Config
from pipeline.dataset.write import Exported
from pipeline.difference import Change, Difference
from pipeline.engine.canary import Trial
from pipeline.engine.reconcile import Comparison, UnknownCharge
from pipeline.forecast import Axis, AxisValue, Plan, PriceLine
from pipeline.jobs import Job
from pipeline.kernel.errors import Mistake
from pipeline.kernel.usd import MicroUsd
from pipeline.ledger.events import Event
from pipeline.ledger.fold import State
from pipeline.ledger.job import JobRecord
from pipeline.manifest import Campaign, Entry
from pipeline.models.base import Scalar
from pipeline.rehearsal import Night, Sample, Scenario
from pipeline.runner.choice import RunOptions
from pipeline.runner.ending import RunResult
from pipeline.runner.watching import LiveRun, Watcher
from pipeline.settling import Reconciliation, Resolution, Settled

__all__ = [
    "Axis",
    "AxisValue",
    "Campaign",
    "Change",
    "Comparison",
    "Config",
    "Difference",
    "Entry",
    "Event",
    "Exported",
    "Job",
    "JobRecord",
    "LiveRun",
    "MicroUsd",
    "Mistake",
    "Night",
    "Plan",
    "PriceLine",
    "Reconciliation",
    "Resolution",
    "RunOptions",
    "RunResult",
    "Sample",
    "Scalar",
    "Scenario",
    "Settled",
    "State",
    "Trial",
    "UnknownCharge",
    "Watcher",
]
