"""Options of the fusions that divide their width into parts, for widths that 4 does not divide."""

from typing import Any

from deq_fusion.fusions.registry import FUSIONS

OPTIONS = {  # the option that names the parts, of every fusion that has them
    **{name: "groups" for name in FUSIONS if name.startswith("deq")},
    **dict.fromkeys(("attention", "healnet", "mbt", "simbamm"), "heads"),
    "nl_gate": "positions",
}


def in_parts(count: int) -> dict[str, dict[str, Any]]:
    """Returns a recipe's `fusion_options` by which every fusion divides its width into that many.

    Args:
        count: of parts, in place of the usual 4; it must divide the width.
    """
    return {name: {option: count} for name, option in OPTIONS.items()}
