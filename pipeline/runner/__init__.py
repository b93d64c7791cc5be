"""The composition root: opens a run's lock, ledger, provider and engine, lets it run, and closes them in order."""
