"""The provider's double: a server on loopback that behaves, bills and misbehaves like Segmind's Kling 2 API.

It shares no code with the rest of the package, so it can disagree with the client.
"""

from pipeline.sandbox.faults import FAULTS
from pipeline.sandbox.instants import INSTANTS
from pipeline.sandbox.server import Sandbox
from pipeline.sandbox.settings import SandboxSettings

__all__ = ["FAULTS", "INSTANTS", "Sandbox", "SandboxSettings"]
