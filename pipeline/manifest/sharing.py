"""What requests have in common: checked once, held once, and found again by the values it was made of."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass, field
from operator import itemgetter

from pipeline.jobs import Job, Kind, ids_of
from pipeline.manifest.batches import Batch
from pipeline.manifest.document import RESERVED, Cells
from pipeline.models import Model
from pipeline.models.base import Scalar

MAX_LAYOUTS = 1_000
MAX_KNOWN = 10_000
"""How many sets of values are remembered; rows with the same values share what was made of them."""

Values = tuple[Scalar, ...]
Types = tuple[type, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Layout:
    """The names of a row's cells, sorted by what they are. The rows of a table have few different layouts."""

    texts: tuple[str, ...]
    """Parameters that are free text, the prompt among them."""
    settings: tuple[str, ...]
    """Parameters besides the prompt."""
    variables: tuple[str, ...]
    pick: Callable[[Cells], Values]
    """Returns the values of the settings and variables among the cells, which rows may have in common."""


@dataclass(slots=True)
class Form:
    """What requests can have in common: the parameters besides the prompt, in normal form."""

    model: str
    params: dict[str, Scalar]
    is_common: bool
    """Whether other rows with the same values ask for the same."""
    kinds: list[tuple[Kind, Callable[[str], str]]] = field(default_factory=list)
    """For each replicate its kind of job, and the function from a prompt to the job's id."""

    def add_kind(self) -> None:
        """Make the kind of the next replicate."""
        kind = Kind(self.model, self.params, len(self.kinds) + 1)
        self.kinds.append((kind, ids_of(kind)))

    def first_job(self, prompt: str, label: str) -> Job:
        """The job of the first replicate for a prompt in normal form."""
        kind, identify = self.kinds[0]
        return Job(identify(prompt), prompt, kind, label)


Common = tuple[Form, Cells]
"""What a request has besides its prompt: its form and its variables."""


@dataclass(slots=True)
class Sharing:
    """Remembers what the requests of one manifest have in common."""

    model: Model
    _layouts: dict[tuple[str, ...], Layout] = field(default_factory=dict)
    _forms: dict[Hashable, Form] = field(default_factory=dict)
    """The forms that were made, by the values that the parameters were written with."""
    _known: dict[Hashable, dict[Values, Common]] = field(default_factory=dict)
    """Forms with variables: by layout, types of the values and tags, and within these by the values."""
    _remembered: int = 0
    _parameters: frozenset[str] = frozenset()
    _no_variables: frozenset[str] = frozenset()

    def __post_init__(self) -> None:
        self._parameters = frozenset(self.model.parameters)
        self._no_variables = self._parameters | frozenset(RESERVED)

    def layout(self, names: Iterable[str]) -> Layout:
        """The layout of cells with these names, in this order."""
        names = tuple(names)
        if (known := self._layouts.get(names)) is not None:
            return known
        texts = tuple(name for name in names if name in self.model.text_parameters)
        settings = tuple(name for name in names if name in self._parameters and name != "prompt")
        variables = tuple(name for name in names if name not in self._no_variables)
        layout = Layout(texts, settings, variables, _picker(settings + variables))
        if len(self._layouts) < MAX_LAYOUTS:
            self._layouts[names] = layout
        return layout

    # All keys hold values and their types, because True == 1.

    def form(self, layout: Layout, values: Values, types: Types) -> Form | None:
        """The form that was remembered for the parameters among these values."""
        some = len(layout.settings)
        return self._forms.get((layout, values[:some], types[:some]))

    def remember_form(self, layout: Layout, values: Values, types: Types, form: Form) -> None:
        """Remember what was made of the parameters among these values."""
        some = len(layout.settings)
        if len(self._forms) < MAX_KNOWN:
            self._forms[layout, values[:some], types[:some]] = form

    def common(self, layout: Layout, values: Values, types: Types, tags: tuple[str, ...]) -> Common | None:
        """The form and the variables that were remembered for these values and tags."""
        known = self._known.get((layout, types, tags))
        return None if known is None else known.get(values)

    def remember(self, layout: Layout, values: Values, types: Types, tags: tuple[str, ...], common: Common) -> None:
        """Remember what was made of these values and tags."""
        if self._remembered < MAX_KNOWN:
            self._known.setdefault((layout, types, tags), {})[values] = common
            self._remembered += 1

    def common_of_each(self, batch: Batch, shared: Cells) -> list[Common | None]:
        """The same for each row of a batch, on top of the `shared` values; none of the rows has tags."""
        if len(batch.shapes) == 1:
            [names] = batch.shapes
            layout = self.layout(dict.fromkeys((*shared, *names)))
            columns = [batch.column(name, shared.get(name)) for name in layout.settings + layout.variables]
            types = [set(map(type, column)) for column in columns]
            if all(len(each) == 1 for each in types):
                known = self._known.get((layout, tuple([each.pop() for each in types]), ()), {})
                return list(map(known.get, zip(*columns, strict=True) if columns else [()] * len(batch)))
        return [self._common_of({**shared, **row.cells}) for row in batch.rows]

    def _common_of(self, cells: Cells) -> Common | None:
        layout = self.layout(cells)
        values = layout.pick(cells)
        return self.common(layout, values, tuple(map(type, values)), ())


def _picker(names: tuple[str, ...]) -> Callable[[Cells], Values]:
    return itemgetter(*names) if len(names) > 1 else lambda cells: tuple([cells[name] for name in names])
