"""Callbacks see every epoch, and may end a training, for good."""

from functools import partial

import pytest

from deq_fusion.training_structures.checkpoint import load_checkpoint, save_checkpoint
from deq_fusion.training_structures.run import load_best
from unit_tests.training_structures.small_models import (
    SGD,
    assert_same,
    cross_entropy,
    loader,
    model_of,
    quiet_fit,
)


def run(model, epochs, **options):
    return quiet_fit(
        *(model, loader(), loader(seed=2), cross_entropy),
        **{"epochs": epochs, "optimizer": SGD} | options,
    )


def at(epoch):
    """A callback that ends the training after that epoch."""
    return lambda history: len(history.epochs) == epoch


def test_each_is_called_with_the_history_after_every_epoch():
    seen, bests = [], []
    history = run(
        model_of(),
        3,
        callbacks=(f for f in (lambda h: seen.append(h.epochs[-1]), lambda h: bests.append(h))),
    )
    assert seen == history.epochs and bests == [history] * 3
    assert not history.ended


def test_one_that_returns_true_ends_the_training_after_all_were_called():
    seen, stopped, short = [], model_of(), model_of()
    callbacks = [at(2), lambda history: seen.append(len(history.epochs))]
    history = run(stopped, 5, callbacks=callbacks)
    assert history.ended and seen == [1, 2] and len(history.epochs) == 2
    run(short, 2)
    assert_same(stopped, short, rtol=0, atol=0)
    assert not stopped.training
    load_best(stopped, history)


@pytest.mark.parametrize("callbacks", [[], [at(2)]])
def test_a_training_that_was_ended_stays_so(tmp_path, callbacks):
    whole, again = model_of(), model_of()
    kept = partial(run, epochs=5, checkpoint=tmp_path / "c")
    kept(whole, callbacks=[at(2)])
    history = kept(again, callbacks=callbacks, resume=True)
    assert history.ended and len(history.epochs) == 2
    assert_same(again, whole, rtol=0, atol=0)


def test_a_checkpoint_of_before_does_not_say_whether_it_was_ended(tmp_path):
    path, whole, again = tmp_path / "c", model_of(), model_of()
    run(model_of(), 2, checkpoint=path)
    contents = load_checkpoint(path)
    del contents["history"]["ended"]
    save_checkpoint(path, contents)
    run(whole, 4)
    assert len(run(again, 4, checkpoint=path, resume=True).epochs) == 4
    assert_same(again, whole, rtol=0, atol=0)
