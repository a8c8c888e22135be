"""Tables of what can be compared: fusions, systems and floors, with their sources and costs."""

import argparse
from collections.abc import Callable, Mapping
from typing import Any

from ..methods import gather
from ..report.table import markdown
from ..systems import About, System, described_systems
from .settings import asked_recipe

WIDTH = 128  # of every modality, where sizes are listed


def listing(
    fusions: Mapping[str, Any],
    systems: Mapping[str, Callable[[], Mapping[str, System]]],
    floors: Mapping[str, Mapping[str, About]],
    args: argparse.Namespace | None = None,
) -> str:
    """Returns tables of what can be compared: its source, what it takes, and what it costs.

    Args:
        fusions: name -> fusion, with the attributes of an `Entry` of `fusions.registry`.
        systems: dataset -> function of its systems.
        floors: dataset -> what its floors are.
        args: arguments of whose dataset alone systems and floors are listed, and what can take
            its data, if they are there to tell; None: everything is.
    """
    listed: dict[str, Mapping[str, System | About]] = {}
    of_floors, left, note = dict(floors), fusions, ""
    if args is None:
        listed = {dataset: of() for dataset, of in systems.items()}
    else:
        name = args.dataset_name
        of_floors = {name: floors.get(name, {})}
        try:
            recipe = asked_recipe(args.recipe, args)
        except (ValueError, OSError) as error:
            note = f"All fusions are listed, for what {name} takes is not known: {error}"
            listed = {name: systems[name]()} if name in systems else {}
        else:
            _, reasons = gather(recipe, {**fusions, **recipe.systems}, unimodal=False)
            left = {each: about for each, about in fusions.items() if each not in reasons}
            own = recipe.systems.items()
            listed = {name: {each: about for each, about in own if each not in reasons}}
            of_floors = {name: {k: v for k, v in of_floors[name].items() if k in recipe.floors}}
    parts = [_fusions(left), note]
    parts += [_others("system", listed), _others("floor", of_floors)]
    return "\n\n".join(part for part in parts if part)


def _fusions(fusions: Mapping[str, Any]) -> str:
    lines = []
    for name, fusion in fusions.items():
        tasks = "any task" if len(fusion.tasks) > 1 else fusion.tasks[0]
        reduced = f"reduced to {fusion.reduce} first" if fusion.reduce else ""
        line = [name, fusion.summary, fusion.source, fusion.takes, tasks]
        lines.append([*line, f"{_parameters(fusion):,}", fusion.cost, reduced])
    head = ["fusion", "what it is", "source", "takes", "for", "parameters", "cost", "besides"]
    return (
        f"{markdown(head, lines)}\n\ntakes: how many modalities, of what; parameters: of the "
        f"fusion, for {WIDTH} numbers from each of three modalities (or as many as it takes); "
        "cost: multiply-adds a sample, for N modalities of width d. Late fusion of predictions is "
        "`late`; every single modality is a row of its own. A fusion of your own: --own-fusion "
        "my_module:MyFusion."
    )


def _others(kind: str, listed: Mapping[str, Mapping[str, System | About]]) -> str:
    """Returns a table of systems or floors; nothing if there are none."""
    lines = [
        [name, about.summary, about.source, about.takes, about.cost, where]
        for name, where, about in described_systems(listed)
    ]
    head = [kind, "what it is", "source", "takes", "cost", "on"]
    return markdown(head, lines) if lines else ""


def _parameters(fusion: Any) -> int:
    least, most = fusion.modalities
    count = max(least, min(3, most or 3))
    options = {}
    if fusion.predicts:
        task = fusion.tasks[0]
        options = {"task": task, "outputs": 1 if task == "regression" else 10}
    module, _ = fusion([WIDTH] * count, WIDTH, **options)
    return sum(p.numel() for p in module.parameters())
