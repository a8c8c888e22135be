"""Kinds of rows and tables of the paper, and how its printed figures become numbers."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

from deq_fusion.examples.studies.tables import Spread

SIGN = "±"


@dataclass(frozen=True)
class Shown:
    """A score as a table of the paper shows it.

    Attributes:
        heading: of its column.
        score: its name among a recipe's scores.
        form: how numbers are shown, see `tables.Column`; with a % the figures are in percent.
        lower: whether less of it is better.
    """

    heading: str
    score: str
    form: str = ".1%"
    lower: bool = False


@dataclass(frozen=True)
class Row:
    """A row of the paper, and what is compared in its place.

    Attributes:
        label: as the paper calls it.
        modalities: as the paper marks them.
        figures: as printed, a word for each score, such as `87.7±0.3`.
        methods: names in the comparison: of fusions, systems or floors, or `only NAME`.
        group: of the comparison that they are in.
        behind: the module or host.
        differs: in what else than the group's they differ from the paper's.
        weights: settings that name its pretrained weights; without one of them it is untrained.
    """

    label: str
    modalities: str
    figures: str
    methods: tuple[str, ...]
    group: str
    behind: str
    differs: str = ""
    weights: tuple[str, ...] = ()

    def cells(self, scores: "tuple[Shown, ...]") -> list[Spread]:
        """Returns the figures as numbers, percents as shares."""
        return cells(self.figures, scores)


@dataclass(frozen=True)
class Group:
    """A comparison: the rows of a table that share data, host and settings.

    Attributes:
        settings: of the recipe.
        modalities: those of the recipe, by name; None: all.
        differs: in what its data and host differ from the paper's.
        published: settings besides, under the published protocol.
        without: settings that its recipe does not take, though others of the table do.
    """

    differs: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    modalities: tuple[str, ...] | None = None
    published: Mapping[str, Any] = field(default_factory=dict)
    without: frozenset[str] = frozenset()


@dataclass(frozen=True)
class PaperTable:
    """A table of the paper that compares systems.

    Attributes:
        title: what it shows.
        dataset: whose recipe it is.
        scores: its columns.
        rows: in the paper's order.
        groups: by name.
        parts: the paper's samples in train, validation and test.
        protocol: how the paper's numbers were selected.
        on_test: whether that was by the part that is reported.
        official: whether the published protocol has a split of its own among the files'.
        runs: of the published protocol.
    """

    title: str
    dataset: str
    scores: tuple[Shown, ...]
    rows: tuple[Row, ...]
    groups: Mapping[str, Group]
    parts: str
    protocol: str
    on_test: bool = False
    official: bool = False
    runs: int | None = None


def cells(figures: str, scores: tuple[Shown, ...]) -> list[Spread]:
    """Returns printed figures as numbers, percents as shares."""
    found = []
    for word, shown in zip(figures.split(), scores, strict=True):
        scale = 100 if shown.form.endswith("%") else 1
        mean, *sd = (float(Decimal(part) / scale) for part in word.split(SIGN))
        found.append(Spread(mean, *sd))
    return found


@dataclass(frozen=True)
class Ablation:
    """A table of the paper that takes DEQ fusion apart.

    Attributes:
        title: what it shows.
        scores: dataset -> its columns.
        rows: row of `studies.ablation` -> dataset -> figures as printed.
    """

    title: str
    scores: Mapping[str, tuple[Shown, ...]]
    rows: Mapping[str, Mapping[str, str]]
