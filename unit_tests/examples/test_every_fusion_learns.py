"""Every registered fusion gains what no modality has alone: on digits, on sequences."""

from dataclasses import replace
from functools import partial

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from deq_fusion.datasets.digits.get_data import QUADRANTS
from deq_fusion.examples.digits.recipe import recipe as digits_recipe
from deq_fusion.fusions.registry import FUSIONS
from deq_fusion.training_structures.comparison import Recipe, Score
from deq_fusion.training_structures.comparison.methods import Method, only, refusal
from deq_fusion.training_structures.comparison.single_run import run_fusion
from deq_fusion.training_structures.Supervised_Learning import MMDL

pytestmark = pytest.mark.slow
DIGITS = replace(digits_recipe(), epochs=20)
GOOD, GAIN = 0.95, 0.10  # accuracy on test, and its distance from the best single quadrant's
LESS = {  # -> accuracy, where less than GOOD is to be expected, and why
    "late": 0.85,  # every quadrant is judged on its own: what two of them show is not seen
    # likewise
    **dict.fromkeys(("evidential", "late_unimodal", "qmf", "pdf"), 0.85),
    "embracenet": 0.92,  # in training every entry hears of one quadrant only
    "vcdn": 0.90,  # of a quadrant it hears how probable each digit is, and no more
    "mult": 0.90,  # made for sequences: in one step there is nothing to attend to
    # likewise: what they fuse is for the next step, and an LSTM has a quarter of the width
    **dict.fromkeys(("mfn", "marn", "rmfn"), 0.92),
}
FEWER = [n for n, e in FUSIONS.items() if e.modalities[1] is not None]
SERIES = [n for n, e in FUSIONS.items() if "sequences" in e.features]
VECTORS = [n for n, e in FUSIONS.items() if refusal(e, DIGITS) is None]


def accuracy(name, fusion, recipe):
    return run_fusion(Method(name, recipe, fusion), 0)["scores"]["accuracy"]


@pytest.fixture(scope="module")
def single():
    """Test accuracy of every quadrant on its own."""
    return {
        quadrant: accuracy(f"only {quadrant}", only, DIGITS.restricted([quadrant]))
        for quadrant in QUADRANTS
    }


def test_every_fusion_is_here():
    assert {*VECTORS, *FEWER, *SERIES} == set(FUSIONS)
    assert LESS.keys() <= set(VECTORS)


@pytest.mark.parametrize("name", VECTORS)
def test_four_quadrants_tell_a_digit(single, name):
    score = accuracy(name, FUSIONS[name], DIGITS)
    assert score >= LESS.get(name, GOOD)
    assert score >= max(single.values()) + GAIN


@pytest.mark.parametrize("name", FEWER)
def test_a_fusion_of_some_quadrants_gains_on_each_of_them(single, name):
    # how good it can be depends on the quadrants, so nothing but the gain is asked for
    seen = QUADRANTS[: FUSIONS[name].modalities[1]]
    score = accuracy(name, FUSIONS[name], DIGITS.restricted(seen))
    assert score >= max(single[quadrant] for quadrant in seen) + GAIN


def load(run, modalities):
    """Noisy sequences of a constant sign in each modality; the truth is the signs' product."""
    generator = torch.Generator().manual_seed(run)
    signs = torch.randint(0, 2, (2, 1024, 1, 1), generator=generator) * 2.0 - 1
    x = signs + 0.5 * torch.randn(2, 1024, 3, 1, generator=generator)
    truth = signs.prod(0).view(-1, 1)
    views = [x["left right".split().index(name)] for name in modalities]
    cuts = slice(0, 512), slice(512, 768), slice(768, None)
    parts = [TensorDataset(*(tensor[cut] for tensor in (*views, truth))) for cut in cuts]
    return tuple(DataLoader(part, batch_size=64, shuffle=not i) for i, part in enumerate(parts))


def build(fusion, train):
    count = len(train.dataset.tensors) - 1
    module, width = fusion([1] * count, 8, 1)
    head = nn.Sequential(nn.Linear(width, 16), nn.ReLU(), nn.Linear(16, 1)) if width else None
    return MMDL([nn.Identity() for _ in range(count)], module, head or nn.Identity())


def same_sign(prediction, truth):
    return {"accuracy": float(((prediction > 0) == (truth > 0)).double().mean())}


SIGNS = Recipe(
    name="signs",
    modalities=("left", "right"),
    load=load,
    build=build,
    objective=nn.functional.mse_loss,
    metrics=same_sign,
    scores=[Score("accuracy")],
    epochs=12,
    task="regression",
    features="sequences",
    select="accuracy",
    optimizer=partial(torch.optim.Adam, lr=3e-3),
)


@pytest.mark.parametrize("name", SERIES)
def test_two_sequences_tell_what_each_alone_leaves_to_chance(name):
    assert accuracy(name, FUSIONS[name], SIGNS) >= 0.9


def test_one_sequence_alone_leaves_it_to_chance():
    for modality in SIGNS.modalities:
        score = accuracy("early_gru", FUSIONS["early_gru"], SIGNS.restricted([modality]))
        assert 0.4 < score < 0.6  # 256 throws of a coin: 3 standard deviations
