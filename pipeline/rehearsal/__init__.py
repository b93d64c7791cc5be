"""The rehearsal of a run: the same engine against the sandbox, in virtual time and without a network."""

from pipeline.rehearsal.night import Night, Sample, Scenario, rehearse

__all__ = ["Night", "Sample", "Scenario", "rehearse"]
