"""The sets: how the modalities tell the class, as settings of the recipe of synthetic vectors."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Structured:
    """A set of known structure.

    Attributes:
        summary: how the class is told, in a few words.
        settings: of `examples.synthetic.vectors.recipe`.
    """

    summary: str
    settings: Mapping[str, Any] = field(default_factory=dict)


def _of(kind: str, summary: str, modalities: int = 3, **more: Any) -> Structured:
    return Structured(summary, {"kind": kind, "modalities": modalities, **more})


SETS: Mapping[str, Structured] = {
    "redundant": _of(
        "redundant", "every modality shows it, each wrongly a fifth of the time", noise=0.2
    ),
    "unique": _of("unique", "the first modality alone shows it"),
    "additive": _of("additive", "a sum of three numbers, one of each, is positive", noise=0.3),
    "mislabelled": _of(
        "additive", "the same, with 30 % of the labels wrong", noise=0.3, mislabelled=0.3
    ),
    "conflicting": _of("conflicting", "all show it, the later ones wrongly more often"),
    "exchanged": _of("exchanged", "each is another sample's half the time, and a mark says so"),
    "gated": _of("gated", "the first modality says which part of the others counts"),
    "product_2": _of("product", "a product of two numbers is positive", 2),
    "product_3": _of("product", "a product of three", 3),
    "product_4": _of("product", "a product of four", 4),
    "parity_2": _of("parity", "two signs agree", 2),
    "parity_3": _of("parity", "three signs have an even number of minuses", 3),
    "parity_4": _of("parity", "four signs have", 4),
    "parity_6": _of("parity", "six signs have, two in each of three modalities", 3, order=6),
    "steep_2": _of("steep", "a sine of the sum is positive, two half turns a unit", 2),
    "steep_6": _of("steep", "the same, six half turns a unit", 2, frequency=6),
    "noise": _of("noise", "nothing shows it"),
}
"""Name -> set. Of `noise` and what is `steep` the summary of the recipe says more."""
