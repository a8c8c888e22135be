"""Fusions compared by their names in the registry."""

from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

from deq_fusion.fusions.registry import FUSIONS
from deq_fusion.training_structures.comparison import Comparison, Fusion, Recipe, System
from deq_fusion.training_structures.comparison import compare as compare_fusions
from deq_fusion.training_structures.comparison.report.text import meant


def compare(
    recipe: Recipe,
    fusions: Iterable[str | Fusion] | Mapping[str, Fusion] | None = None,
    runs: int | Sequence[int] = 20,
    **asked: Any,
) -> Comparison:
    """Trains every method (floors, single modalities, systems, fusions) in every run, and compares
    them.

        from deq_fusion import compare
        from deq_fusion.examples.digits.recipe import recipe

        found = compare(recipe(), ["deq", "concat"], runs=3)
        print(found)
        found.write("results/digits")

    Args:
        recipe: the benchmark.
        fusions: names in the registry or of the recipe's systems, and classes or functions of
            one's own, which go by their own names; or name -> fusion; None: all of the registry
            that can take the recipe.
        runs: their number, or their numbers: the seed and, if the recipe resplits, the split of
            each.
        **asked: `output`, `baseline`, `jobs` and others, see `compare` of
            `deq_fusion.training_structures.comparison`, which also says what is raised.

    Raises:
        ValueError: for a name that is not in the registry, or comes twice; and others, see there.
    """
    return compare_fusions(recipe, named(fusions, recipe.systems), runs, **asked)


def named(
    fusions: Iterable[str | Fusion] | Mapping[str, Fusion] | None,
    systems: Mapping[str, System] = MappingProxyType({}),
) -> Mapping[str, Fusion | System]:
    """Returns name -> fusion or system, of what `compare` takes; `systems` are the recipe's."""
    known = {**systems, **FUSIONS}
    if fusions is None:
        return FUSIONS
    if isinstance(fusions, Mapping):
        for name, fusion in fusions.items():
            if FUSIONS.get(name, fusion) is not fusion:  # which recipes have options for
                raise ValueError(f"{name!r} is a fusion of the registry; name your own otherwise")
        return fusions
    if isinstance(fusions, str):
        raise ValueError(f"fusions must be a list of names, got {fusions!r}; write [{fusions!r}]")
    found: dict[str, Fusion | System] = {}
    for fusion in fusions:
        name = fusion if isinstance(fusion, str) else getattr(fusion, "__name__", None)
        if name is None:
            raise ValueError(f"a fusion without a name must be given as {{name: it}}, got {fusion}")
        if isinstance(fusion, str) and name not in known:
            choices = ", ".join([*FUSIONS, *systems])
            near = meant([name], known)
            raise ValueError(f"unknown fusion {name!r}; {near}choose from {choices}")
        if name in found:
            raise ValueError(f"every fusion needs a name of its own, {name!r} comes twice")
        found[name] = known[name] if isinstance(fusion, str) else fusion
    return found
