"""What can be generated: one file per model, with its parameters, limits, prices and quote."""

from __future__ import annotations

from pipeline.kernel.suggestion import suggestion
from pipeline.models.base import Model, Problem
from pipeline.models.kling_2 import KLING_2

__all__ = ["DEFAULT_MODEL", "MODELS", "Model", "Problem", "find_model"]

MODELS: dict[str, Model] = {model.name: model for model in (KLING_2,)}
DEFAULT_MODEL = KLING_2.name


def find_model(name: str) -> Model:
    """The model of that name.

    Raises:
        ValueError: there is none; the sentence names the nearest one.
    """
    if name in MODELS:
        return MODELS[name]
    raise ValueError(f"there is no model {name[:60]!r}; {suggestion(name, MODELS)}")
