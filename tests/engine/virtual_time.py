"""Virtual time, under the name by which the tests know it."""

from pipeline.kernel.virtual_time import STARTED_US, VirtualClock, VirtualLoop, run_virtually

__all__ = ["STARTED_US", "VirtualClock", "VirtualLoop", "run_virtually"]
