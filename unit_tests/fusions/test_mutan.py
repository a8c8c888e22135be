"""MUTAN is a sum over ranks of products over modalities."""

import pytest
import torch

from deq_fusion.fusions.mutan import Mutan

WIDTHS, DIM, RANK = [3, 5, 2], 4, 3


def by_hand(fusion, features):
    total = 0
    for r in range(RANK):
        product, rows = 1, slice(r * DIM, (r + 1) * DIM)
        for x, project, factor in zip(features, fusion.projections, fusion.factors, strict=True):
            h = (x @ project.weight.T + project.bias).tanh()
            product = product * (h @ factor.weight[rows].T + factor.bias[rows])
        total = total + product
    return total


@pytest.mark.parametrize("count", [1, 2, 3])
def test_follows_the_formula(double, count):
    fusion = Mutan(WIDTHS[:count], DIM, hidden=6, rank=RANK)
    features = [torch.randn(7, width) for width in WIDTHS[:count]]
    torch.testing.assert_close(fusion(features), by_hand(fusion, features))


def test_is_a_tucker_form_whose_core_slices_have_the_rank(double):
    fusion = Mutan(WIDTHS[:2], DIM, hidden=6, rank=RANK)
    for factor in fusion.factors:
        torch.nn.init.zeros_(factor.bias)
    features = [torch.randn(7, width) for width in WIDTHS[:2]]
    a, b = (factor.weight.view(RANK, DIM, 6) for factor in fusion.factors)
    core = torch.einsum("rkp,rkq->pqk", a, b)
    h = [p(x).tanh() for p, x in zip(fusion.projections, features, strict=True)]
    torch.testing.assert_close(fusion(features), torch.einsum("bp,bq,pqk->bk", *h, core))
    assert torch.linalg.matrix_rank(core.permute(2, 0, 1)).tolist() == [RANK] * DIM


def test_drops_entries_of_the_features_in_training_only(double):
    fusion = Mutan(WIDTHS, DIM, hidden=6, rank=RANK, dropout=0.5)
    features = [torch.randn(7, width) for width in WIDTHS]
    torch.manual_seed(1)
    fused = fusion(features)
    torch.manual_seed(1)
    dropped = [torch.nn.functional.dropout(x, 0.5) for x in features]
    torch.testing.assert_close(fused, by_hand(fusion, dropped))
    torch.testing.assert_close(fusion.eval()(features), by_hand(fusion, features))


def test_takes_features_that_are_embedded_already(double):
    fusion = Mutan(WIDTHS[:2], DIM, hidden=None, rank=RANK)
    a, b = (factor.weight.view(RANK, DIM, -1) for factor in fusion.factors)
    shift_a, shift_b = (factor.bias.view(RANK, DIM) for factor in fusion.factors)
    x, y = (torch.randn(7, width) for width in WIDTHS[:2])
    left, right = (torch.einsum("rdi,bi->brd", m, f) for m, f in ((a, x), (b, y)))
    torch.testing.assert_close(fusion([x, y]), ((left + shift_a) * (right + shift_b)).sum(1))


def test_has_the_published_sizes():
    with torch.device("meta"):
        embedding = Mutan([2400, 2048], 360, hidden=360, rank=10)
        embedded = Mutan([620, 310], 510, hidden=None, rank=5)
    counts = [sum(p.numel() for p in fusion.parameters()) for fusion in (embedding, embedded)]
    projections = (2400 + 1) * 360 + (2048 + 1) * 360
    factors = 2 * 10 * (360 + 1) * 360
    assert counts == [projections + factors, 5 * (620 + 1) * 510 + 5 * (310 + 1) * 510]


@pytest.mark.parametrize("option", [{"rank": 0}, {"hidden": 0}, {"dropout": 1.0}])
def test_refuses_options_that_make_no_sense(option):
    with pytest.raises(ValueError, match=f"{next(iter(option))} must be"):
        Mutan(WIDTHS, DIM, **option)


def test_features_that_dropout_or_autocast_makes_infinite_are_refused(double):
    fusion = Mutan(WIDTHS, DIM, hidden=6, rank=RANK, dropout=0.5)
    features = [torch.randn(7, width) for width in WIDTHS]
    features[1][2] = torch.finfo(torch.float64).max  # which is doubled, or dropped
    message = r"finite as they are computed with, in torch.float64, but features\[1\], of"
    with pytest.raises(ValueError, match=message):
        fusion(features)
    assert fusion.eval()(features).isfinite().all()
    features = [x.float() for x in features]
    features[1][2] = 1e5
    with torch.autocast("cpu", dtype=torch.float16):
        with pytest.raises(ValueError, match=r"in torch.float16, but features\[1\], of .*1.0e\+05"):
            fusion.float()(features)
