"""What the values of a row become: the prompt and the other parameters in normal form, and the variables."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from pipeline.manifest.document import Cells, Row, from_text
from pipeline.manifest.images import LocalImages, is_local
from pipeline.manifest.rows import Rows
from pipeline.manifest.sharing import Form, Layout, Sharing
from pipeline.manifest.sizes import Sizes
from pipeline.manifest.template_language import BadTemplateError
from pipeline.manifest.templates import is_template, render, scope, seen, single_braced
from pipeline.models import Model, Problem
from pipeline.models.base import Scalar

MAX_VALUE = 10_000
"""Characters of a variable."""

_NO_VARIABLES: Mapping[str, Scalar] = MappingProxyType({})
_UNWANTED = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff]")

Request = tuple[str, Form, Cells]
"""A prompt in normal form, the other parameters, and the variables."""


@dataclass(slots=True)
class Requests:
    """The requests of the rows that come by. What is wrong with one is noted."""

    model: Model
    images: LocalImages
    rows: Rows
    sizes: Sizes
    sharing: Sharing
    _parameters: frozenset[str] = field(init=False)
    _misshapen: int = 0
    """The last row that got a warning about the shape of its image."""

    def __post_init__(self) -> None:
        self._parameters = frozenset(self.model.parameters)

    def of(self, row: Row, cells: Cells, combination: Cells, tags: tuple[str, ...]) -> Request | None:
        """The request that the latest row makes with these values, or None if there are mistakes.

        What rows have in common besides the prompt is checked once, and shared by them.

        Raises:
            ManifestError: all prompts together are too long.
        """
        layout = self.sharing.layout(cells)
        values = layout.pick(cells)
        types = tuple(map(type, values))
        form: Form | None
        is_common = True
        if (known := self.sharing.common(layout, values, types, tags)) is not None:
            form, variables = known
        else:
            form = self.sharing.form(layout, values, types)
            variables, is_good = self._variables(row, cells, layout, tags)
            # Equal floats can be spelled differently (0.0 and -0.0), so variables with floats are not shared.
            is_common = is_good and float not in types[len(layout.settings) :]
        prompt = None if form is None else self._prompt(row, cells, combination, variables)
        if prompt is None:
            found = self._looked_through(row, cells, layout, combination, variables)
            if found is None:
                return None
            prompt, form = found
            if known is None and form is not None and form.is_common:
                self.sharing.remember_form(layout, values, types, form)
        self.sizes.add_prompt(prompt)
        if form is None:
            return None
        if known is None and is_common and form.is_common:
            self.sharing.remember(layout, values, types, tags, (form, variables))
        if len(prompt) > (usual := self.model.usual_prompt_length):
            message = f"is {len(prompt):,} characters long; the model is known to take in {usual:,}"
            self.rows.warn(row, message, "prompt", row.line_of("prompt"))
        return prompt, form, variables

    def _prompt(self, row: Row, cells: Cells, combination: Cells, variables: Cells) -> str | None:
        """The prompt in normal form; None if there is anything wrong with it."""
        text = cells.get("prompt")
        if isinstance(text, str) and "{" in text:
            text = self._rendered(row, "prompt", text, self._given(cells), variables, combination)
        try:
            return self.model.normal_prompt(text)
        except ValueError:
            return None

    def _variables(self, row: Row, cells: Cells, layout: Layout, tags: tuple[str, ...]) -> tuple[Cells, bool]:
        """The variables, and whether nothing is wrong with them."""
        variables, is_good = {name: cells[name] for name in layout.variables}, True
        for name, value in variables.items():
            if not isinstance(value, str):
                continue
            if len(value) > MAX_VALUE:
                problem = f"is longer than {MAX_VALUE:,} characters"
            elif not value.isprintable() and _UNWANTED.search(value):
                problem = "has a control character in it; remove it"
            elif is_template(value):
                texts = [f"`{name}`" for name in self.model.parameters if name in self.model.text_parameters]
                problem = f"has a template in it, but this is a variable: only {', '.join(texts)} may be templates"
            else:
                variables[name] = from_text(value)
                continue
            self.rows.mistake(row, name, problem)
            is_good = False
        if tags:
            variables["tags"] = ", ".join(tags)
        return variables or _NO_VARIABLES, is_good

    def _given(self, cells: Cells) -> dict[str, Scalar]:
        return {name: value for name, value in cells.items() if name in self._parameters}

    def _looked_through(
        self, row: Row, cells: Cells, layout: Layout, combination: Cells, variables: Cells
    ) -> tuple[str, Form | None] | None:
        """The prompt in normal form and the other parameters, None for these or for both if there are mistakes."""
        given = self._given(cells)
        braced = [name for name in layout.texts if isinstance(text := given[name], str) and "{" in text]
        for name in braced:
            rendered = self._rendered(row, name, str(given[name]), given, variables, combination)
            if rendered is None:
                return None
            given[name] = rendered
        is_common = "start_image" not in given and all(name == "prompt" for name in braced)
        unusable = self._with_image(given) if "start_image" in given else []
        params, problems = self.model.normalise(given)
        problems += unusable
        for name, message in problems:
            self.rows.mistake(row, name, message)
        if "start_image" in params:
            self._note_shape(row, params)
        prompt = str(params.pop("prompt"))
        return prompt, None if problems else Form(self.model.name, params, is_common)

    # --- start images that are files ---

    def _with_image(self, given: dict[str, Scalar]) -> list[Problem]:
        """Put the hash of a start image that is a file in the place of its path; the problem with it, if any."""
        written = given["start_image"]
        if not isinstance(written, str) or not (path := written.strip()) or not is_local(path):
            return []
        try:
            given["start_image"] = self.images.find(path).hashed
        except ValueError as problem:
            del given["start_image"]
            return [("start_image", str(problem))]
        return []

    def _note_shape(self, row: Row, params: Mapping[str, Scalar]) -> None:
        """Warn, once for each row, of a start image that does not have the shape of the video that the row asks for."""
        image = self.images.by_hash.get(str(params["start_image"]))
        frame = self.model.frame_size({name: value for name, value in params.items() if name != "start_image"})
        if image is None or frame is None or image.has_shape_of(*frame) or self._misshapen == self.rows.count:
            return
        self._misshapen = self.rows.count
        message = (
            f"{image.path.name} has {image.width}x{image.height} pixels, which is not the shape of aspect_ratio "
            f"{params['aspect_ratio']}; give an image of {frame[0]}x{frame[1]}, or the aspect_ratio that it has"
        )
        self.rows.warn(row, message, "start_image", row.line_of("start_image"))

    # --- templates ---

    def _rendered(
        self,
        row: Row,
        name: str,
        text: str,
        given: Mapping[str, Scalar],
        variables: Mapping[str, Scalar],
        combination: Mapping[str, Scalar],
    ) -> str | None:
        """The text with its templates filled in; None if it has a mistake."""
        try:
            if braced := single_braced(text, variables):
                raise BadTemplateError(f"has {{{braced}}} in single braces; write {{{{ {braced} }}}}")
            if not is_template(text):
                return text
            rendered = render(text, self._visible(row, text, given, variables, combination), row.columns)
            if row.record is not None and is_template(rendered):
                raise BadTemplateError(
                    "gives a text with a template in it, and what a record brings is not rendered; "
                    "without `each`, a column `prompt` is a template itself"
                )
            return rendered
        except BadTemplateError as problem:
            self.rows.mistake(row, name, str(problem))
            return None

    def _visible(
        self,
        row: Row,
        text: str,
        given: Mapping[str, Scalar],
        variables: Mapping[str, Scalar],
        combination: Mapping[str, Scalar],
    ) -> dict[str, Any]:
        """What templates see: the variables, the parameters that are not text, and the record behind the row.

        The parameters are in normal form, so that a default said and a default left out give the same text. The nearest
        wins: what the row says, then its record, then axes and defaults.
        """
        variables = seen(variables)
        others = {name: value for name, value in given.items() if name not in self.model.text_parameters}
        params, _ = self.model.normalise(others)
        visible: dict[str, Any] = {name: params[name] for name in params if name not in self.model.text_parameters}
        if row.record is None:
            return visible | _row_in_sight(row, text) | dict(variables)
        near = {
            name: value
            for name, value in variables.items()
            if name in row.cells or name in row.sweep.axes or name not in row.record
        }
        own = {name: variables[name] for name in combination if name in variables and name in set(row.sweep.names())}
        return {**scope(row.record), **visible, **near, **own}


def _row_in_sight(row: Row, text: str) -> dict[str, Any]:
    """The row under the name `row`, where a template asks for it."""
    return {"row": scope(row.as_record())["row"]} if "row" in text else {}
