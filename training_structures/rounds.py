"""Rounds: a training that learns from the same batches several times, in other parts of a model.

Alternating training takes a step of one part, then one of another, each by its own loss;
pre-training is a schedule whose first epochs have other rounds. The model is told which it is in
by its attribute `round`, and says what that means: which loss there is, and on what it depends.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from torch import nn

Schedule = Callable[[int], Sequence[str]]
"""The number of an epoch, from 1, to the names of the rounds of its steps, in order."""


def check_model(model: nn.Module) -> None:
    """Raises ValueError unless the model can be told of a round, and is in none."""
    if getattr(model, "round", "") is not None:
        raise ValueError(
            "rounds need a model with an attribute `round`, None outside of training, by which it "
            f"chooses what to learn, but {type(model).__name__} has "
            + (f"{model.round!r} there" if hasattr(model, "round") else "none")
        )


def rounds_of(schedule: Schedule | None, epoch: int) -> list[str | None]:
    """Returns the rounds of an epoch's steps; without a schedule one, which is None.

    Raises:
        ValueError: for a schedule that gives no names, or other things.
    """
    if schedule is None:
        return [None]
    names = schedule(epoch)
    known = not isinstance(names, str) and isinstance(names, Sequence)
    if not known or not names or not all(isinstance(name, str) and name for name in names):
        raise ValueError(
            f"rounds must give the names of the rounds of an epoch, such as ['views', 'joint'], "
            f"got {names!r} for epoch {epoch}"
        )
    return list(names)


@contextmanager
def in_round(model: Any, name: str | None) -> Iterator[None]:
    """Lets the model be in a round; afterwards it is in none, whatever has happened."""
    if name is None:
        yield
        return
    model.round = name
    try:
        yield
    finally:
        model.round = None


def recorded_as(names: Sequence[str | None], number: int) -> list[str]:
    """Returns the names of the losses of a round, by its number: the last one's is the loss of the
    step, and where there are several each has one of its own."""
    own = [f"train_loss_{names[number]}"] if len(names) > 1 else []
    return own + ["train_loss"] * (number == len(names) - 1)
