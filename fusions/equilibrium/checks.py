"""Checks of options: what must hold, what came, what to do. Those of features: features.py.

An option's rule is a function (name, value) that raises unless the value fits. A constructor
states its rules once, in a mapping from name to rule, and has them checked by `check_options`.
"""

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from numbers import Integral, Real
from typing import Any, cast

Rule = Callable[[str, Any], None]

# Bounds of what would only take memory or time. They are far beyond what anybody has used.
WIDEST = 2**24
MOST_MODALITIES = 1000
MOST_STEPS = 1_000_000


def check_options(options: Mapping[str, Any], rules: Mapping[str, Rule]) -> None:
    """Raises for the first of the rules whose option does not fit."""
    for name, rule in rules.items():
        rule(name, options[name])


def optional(rule: Rule) -> Rule:
    """Returns the rule of an option that may be None, too."""
    return lambda name, value: None if value is None else rule(name, value)


def one_of(choices: Collection[str]) -> Rule:
    """Returns the rule of an option that is one of `choices`."""
    return partial(check_choice, choices=choices)


def check_choice(name: str, value: Any, choices: Collection[str]) -> None:
    """Raises ValueError unless `value` is one of `choices`."""
    if not isinstance(value, str) or value not in choices:
        raise ValueError(f"unknown {name} {shown(value)}; choose from {sorted(choices)}")


def check_flag(name: str, value: Any) -> None:
    """Raises ValueError unless `value` is True or False: neither 1 nor "False"."""
    if not isinstance(value, bool):
        raise ValueError(f"{name} must be True or False, got {shown(value)}")


def check_count(name: str, value: Any, most: int = MOST_STEPS) -> None:
    """Raises ValueError unless `value` is an integer from 1 to `most`; numpy's are integers."""
    if not isinstance(value, Integral) or isinstance(value, bool) or value < 1:
        raise ValueError(f"{name} must be an integer of at least 1, got {shown(value)}")
    if cast(int, value) > most:
        raise ValueError(f"{name} must be at most {most}, got {shown(value)}")


check_width = partial(check_count, most=WIDEST)


def check_widths(name: str, value: Any) -> None:
    """Raises unless `value` lists a width for each of 1 to `MOST_MODALITIES` modalities."""
    if isinstance(value, str | bytes) or not isinstance(value, Sequence):
        raise TypeError(
            f"{name} must list a width for each modality, got {shown(value)}; pass a list of "
            "integers such as [512, 1024]"
        )
    if not value:
        raise ValueError(f"{name} must name the width of at least one modality, got none")
    if len(value) > MOST_MODALITIES:
        raise ValueError(f"{name} must list at most {MOST_MODALITIES} modalities, got {len(value)}")
    for i, width in enumerate(value):
        check_width(f"{name}[{i}]", width)


def check_range(name: str, value: Any, low: float, high: float, *, above: bool = False) -> None:
    """Raises ValueError unless low <= value < high, or with `above` low < value <= high."""
    if not above:
        wanted = f"at least {low:g} and below {high:g}"
    else:
        wanted = f"above {low:g} and at most {high:g}"
    if not isinstance(value, Real) or isinstance(value, bool):
        raise ValueError(f"{name} must be a number, {wanted}, got {shown(value)}")
    number = cast(float, value)  # a Real has no order that mypy knows
    if not (low < number <= high if above else low <= number < high):
        raise ValueError(f"{name} must be {wanted}, got {shown(value)}")


check_probability = partial(check_range, low=0, high=1)
check_not_negative = partial(check_range, low=0, high=math.inf)


def check_groups(name: str, groups: Any, dim: int, *, least: int = 1) -> None:
    """Raises ValueError unless `groups` divides `dim` into groups of at least `least` channels."""
    check_count(name, groups)
    if dim % groups == 0 and dim // groups >= least:
        return
    fitting = [k for k in range(1, dim // least + 1) if dim % k == 0]
    advice = f"choose {name} from {fitting}, or another dim"
    if dim % groups:
        raise ValueError(f"dim (={dim}) must be divisible by {name} (={groups}); {advice}")
    raise ValueError(
        f"{name} (={groups}) must leave at least {least} channels of dim (={dim}) to a group; "
        f"{advice}"
    )


def shown(value: Any) -> str:
    """Returns a value as an error shows it: on one line, and cut where it is long."""
    if isinstance(value, str | bytes | list | tuple | range) and len(value) > 80:
        value = value[:80]  # not all is to be written out before it is cut
    text = " ".join(repr(value).split())
    return text if len(text) <= 80 else f"{text[:79]}…"
