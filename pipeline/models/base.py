"""What every model can say of itself."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from pipeline.kernel.usd import MicroUsd

Scalar = str | int | float | bool | None
"""What a parameter or a variable may be."""

Problem = tuple[str, str]
"""A parameter's name, and a sentence: what is wrong and what would be right."""


class Model(Protocol):
    """A model that can be asked for videos."""

    @property
    def name(self) -> str:
        """Its name in manifests, ids and the provider's addresses: "kling-2"."""
        ...

    @property
    def parameters(self) -> tuple[str, ...]:
        """The names of all its parameters, in the order that tables show them."""
        ...

    @property
    def text_parameters(self) -> frozenset[str]:
        """The parameters that are free text, so that a manifest may write them as templates."""
        ...

    @property
    def usual_prompt_length(self) -> int:
        """Characters of a prompt that the model is known to take in; a longer one is allowed."""
        ...

    @property
    def default_prices(self) -> Mapping[str, MicroUsd]:
        """The published price of one generation, by `price_key`."""
        ...

    def normalise(self, given: Mapping[str, object]) -> tuple[dict[str, Scalar], list[Problem]]:
        """Bring parameters to their one normal form, defaults filled in.

        Returns the parameters and all problems; where there is a problem, the parameters are not to be used.
        """
        ...

    def normal_prompt(self, prompt: object) -> str:
        """A prompt in normal form, as `normalise` brings it there.

        Raises:
            ValueError: there is a problem with it.
        """
        ...

    def normal_prompts(self, prompts: Sequence[object]) -> list[str]:
        """Many prompts in normal form.

        Raises:
            ValueError: there is a problem with one of them.
        """
        ...

    def price_key(self, params: Mapping[str, Scalar]) -> str:
        """Which price holds for parameters in normal form, with or without the prompt: a key of `budget.prices_usd`."""
        ...

    def duration_s(self, params: Mapping[str, Scalar]) -> float:
        """The length of the video in seconds."""
        ...

    def frame_size(self, params: Mapping[str, Scalar]) -> tuple[int, int] | None:
        """Width and height of the video in pixels; None where a start image decides."""
        ...
