"""The list of the fusions that can be compared."""

from collections.abc import Mapping

from .methods import bounds
from .recipe import Fusion
from .table import markdown

WIDTH = 128  # of every modality, where sizes are listed


def listing(fusions: Mapping[str, Fusion], later: Mapping[str, str]) -> str:
    """Returns a table of the fusions: what they take, and what they cost.

    Args:
        fusions: name -> fusion, with the attributes of an `Entry` of `fusions.registry`.
        later: methods that are not there yet -> why.
    """
    lines = []
    for name, fusion in fusions.items():
        least, most = fusion.modalities
        takes = " or ".join(fusion.features)
        tasks = "any task" if len(fusion.tasks) > 1 else fusion.tasks[0]
        reduced = f"reduced to {fusion.reduce} first" if fusion.reduce else ""
        lines.append(
            [
                name,
                fusion.summary,
                bounds(least, most).partition(" modalit")[0],
                takes,
                tasks,
                f"{_parameters(fusion):,}",
                fusion.cost,
                reduced,
            ]
        )
    head = ["fusion", "what it is", "modalities", "takes", "for", "parameters", "cost", ""]
    text = (
        f"{markdown(head, lines)}\n\nparameters: of the fusion, for {WIDTH} numbers from each of "
        "three modalities (or as many as it takes); cost: multiply-adds a sample, for N "
        "modalities of width d. Late fusion of predictions is `late`; every single modality is "
        "a row of its own. A fusion of your own: --own-fusion my_module:MyFusion."
    )
    if later:
        rest = "; ".join(f"{name} ({why})" for name, why in later.items())
        text += f"\n\nNot there yet: {rest}."
    return text


def _parameters(fusion: Fusion) -> int:
    least, most = fusion.modalities
    count = max(least, min(3, most or 3))
    options = {}
    if fusion.predicts:
        task = fusion.tasks[0]
        options = {"task": task, "outputs": 1 if task == "regression" else 10}
    module, _ = fusion([WIDTH] * count, WIDTH, **options)
    return sum(p.numel() for p in module.parameters())
