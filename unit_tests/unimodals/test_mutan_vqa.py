"""Mutan's hosts by their formulas and published sizes, with any fusion between them."""

import pytest
import torch
from torch import nn
from torch.nn.functional import dropout

from deq_fusion.fusions.mutan import Mutan
from deq_fusion.fusions.registry import FUSIONS
from deq_fusion.unimodals.mutan_vqa import MutanAtt, MutanNoAtt

WORDS, IMAGE, ANSWERS = 9, 6, 3
TOKENS = torch.tensor([[3, 1, 4, 0], [2, 8, 0, 0], [5, 6, 2, 1], [7, 0, 0, 0]])
param = pytest.mark.parametrize


class Concat(nn.Module):
    """A fusion by concatenation, to look at the host alone."""

    def forward(self, features):
        return torch.cat(features, dim=1)


def no_att(fusion=None, width=None, **options):
    fusion, width = (Concat(), 2 * 4) if fusion is None else (fusion, width)
    sizes = {"question_dim": 10, "embedding": 5, "hidden": 4}
    return MutanNoAtt(WORDS, IMAGE, ANSWERS, fusion, width, **sizes, **options)


def att(fusion=None, width=None, **options):
    fusion, width = (Concat(), 3 * 4) if fusion is None else (fusion, width)
    sizes = {"question_dim": 10, "embedding": 5, "hidden": 4, "attended": 7, "rank": 3}
    return MutanAtt(WORDS, IMAGE, ANSWERS, fusion, width, **sizes, **options)


HOSTS = {"no_att": (no_att, [4, 4]), "att": (att, [8, 4])}
hosts = param("name", HOSTS)


def images():
    """Regions of four images, of which two have padding, one after regions and one before."""
    regions = torch.randn(4, 5, IMAGE)
    regions[0, 3:], regions[1, :2] = 0, 0
    return regions


def affine(layer, x):
    return torch.einsum("oi,...i->...o", layer.weight, x) + layer.bias


def tucker(left, right, x, y, rank):
    """sum_r (A_r x + a_r) * (B_r y + b_r), rank by rank."""
    dim = len(left.bias) // rank
    total = 0
    for r in range(rank):
        rows = slice(r * dim, (r + 1) * dim)
        a = torch.einsum("oi,...i->...o", left.weight[rows], x) + left.bias[rows]
        b = torch.einsum("oi,...i->...o", right.weight[rows], y) + right.bias[rows]
        total = total + a * b
    return total


def attended(host, question, regions, drop):
    """The host with attention, up to the features that it fuses."""
    layers = host.attention
    v = torch.tanh(affine(layers.image, drop(regions)))
    u = torch.tanh(affine(layers.question, drop(question)))
    z = tucker(layers.image_factors, layers.question_factors, v, u[:, None], 3)
    scores = affine(layers.scores, drop(z))
    glimpses = torch.zeros(len(regions), 2, IMAGE)
    for k, image in enumerate(regions):
        there = [p for p in range(len(image)) if image[p].abs().sum() > 0]
        for g in range(2):
            weights = torch.exp(scores[k, there, g])
            glimpses[k, g] = (weights[:, None] * image[there]).sum(0) / weights.sum()
    glimpses = drop(glimpses)
    visual = [torch.tanh(affine(host.embed_glimpses[g], glimpses[:, g])) for g in range(2)]
    return torch.cat(visual, 1), torch.tanh(affine(host.embed_question, drop(question)))


def keep(x):
    return x


def halve(x):
    return dropout(x, 0.5)


@param("drop", [keep, halve])
def test_without_attention_as_published(double, drop):
    host = no_att(Mutan([4, 4], 6, hidden=None, rank=3), 6, question_dropout=0.0)
    host.train(drop is halve)
    regions, question = images(), host.question(TOKENS)
    image = regions.sum(1) / torch.tensor([3, 3, 5, 5])[:, None]
    for given in (regions, image):
        torch.manual_seed(1)  # of the same masks, in the order of the formula
        logits = host([TOKENS, given])
        torch.manual_seed(1)
        q = torch.tanh(affine(host.embed_question, drop(question)))
        v = torch.tanh(affine(host.embed_image, drop(image)))
        fused = tucker(*host.fusion.factors, q, v, 3)
        torch.testing.assert_close(logits, affine(host.head[1], drop(fused)))


@param("drop", [keep, halve])
def test_with_attention_as_published(double, drop):
    host = att(Mutan([8, 4], 6, hidden=None, rank=2), 6, question_dropout=0.0)
    host.train(drop is halve)
    regions, question = images(), host.question(TOKENS)
    torch.manual_seed(1)
    logits = host([TOKENS, regions])
    torch.manual_seed(1)
    visual, textual = attended(host, question, regions, drop)
    fused = tucker(*host.fusion.factors, visual, textual, 2)
    torch.testing.assert_close(logits, affine(host.head[1], drop(fused)))


@hosts
def test_padding_and_batch_mates_change_nothing(name):
    host, regions = HOSTS[name][0]().eval(), images()
    logits = host([TOKENS, regions])
    longer = [torch.cat([TOKENS, 0 * TOKENS], 1), torch.cat([regions, 0 * regions], 1)]
    torch.testing.assert_close(host(longer), logits)
    torch.testing.assert_close(host([TOKENS[:1, :3], regions[:1, :3]]), logits[:1])
    with torch.no_grad():
        host.question.embedding.weight[0] = torch.nan
    torch.testing.assert_close(host([TOKENS, regions]), logits)


@hosts
def test_an_image_without_regions_counts_as_zeros(name):
    host, regions = HOSTS[name][0]().eval(), images()
    regions[2] = 0
    logits = host([TOKENS, regions])
    assert torch.isfinite(logits).all()
    torch.testing.assert_close(host([TOKENS[2:3], regions[2:3, :1]]), logits[2:3])
    (logits * torch.randn_like(logits)).sum().backward()
    assert all(torch.isfinite(p.grad).all() for p in host.parameters())


def test_without_attention_has_the_published_sizes():
    with torch.device("meta"):
        fusion = Mutan([360, 360], 360, hidden=None, rank=10)
        host = MutanNoAtt(1000, 2048, 2000, fusion, 360)
    question = 1000 * 620 + 3 * 2400 * (620 + 1 + 2400)
    embedded = 360 * (2400 + 1) + 360 * (2048 + 1)
    expected = question + embedded + 2 * 10 * 360 * (360 + 1) + 2000 * (360 + 1)
    assert sum(p.numel() for p in host.parameters()) == expected == 27_294_400


def test_with_attention_has_the_published_sizes():
    with torch.device("meta"):
        fusion = Mutan([620, 310], 510, hidden=None, rank=5)
        host = MutanAtt(1000, 2048, 2000, fusion, 510)
    question = 1000 * 620 + 3 * 2400 * (620 + 1 + 2400)
    image, text = 310 * (2048 + 1), 310 * (2400 + 1)
    attention = image + text + 2 * 5 * 510 * (310 + 1) + 2 * (510 + 1)
    fused = 2 * image + text + 5 * 510 * (620 + 1) + 5 * 510 * (310 + 1)
    expected = question + attention + fused + 2000 * (510 + 1)
    assert sum(p.numel() for p in host.parameters()) == expected == 30_751_112


@hosts
@param("fusion", ["concat", "weighted_sum", "deq", "mutan"])
def test_learns_a_few_answers_with_any_fusion(name, fusion):
    build, widths = HOSTS[name]
    options = {"mutan": {"dropout": 0.0, "hidden": 8}, "deq": {"tol": 1e-2}}.get(fusion, {})
    host = build(*FUSIONS[fusion](widths, 8, **options), dropout=0.0, question_dropout=0.0)
    inputs, answers = [TOKENS, images()], torch.tensor([0, 2, 1, 2])
    logits = host(inputs)
    assert logits.shape == (4, ANSWERS)
    (logits * torch.randn_like(logits)).sum().backward()
    assert all(p.grad.abs().sum() > 0 for p in host.parameters())
    optimizer = torch.optim.Adam(host.parameters(), lr=3e-2)
    for _ in range(40):
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(host(inputs), answers)
        loss.backward()
        optimizer.step()
    assert loss < 0.05


@hosts
def test_a_fusion_may_predict_on_its_own(name):
    build, widths = HOSTS[name]
    host, predicted = build(*FUSIONS["late"](widths, 8, outputs=ANSWERS, task="regression")), []
    host.fusion.register_forward_hook(lambda module, features, out: predicted.append(out))
    assert host([TOKENS, images()]) is predicted[0]


@hosts
def test_runs_in_mixed_precision(name):
    build, widths = HOSTS[name]
    host, inputs = build(*FUSIONS["deq"](widths, 8)).eval(), [TOKENS, images()]
    with torch.autocast("cpu", torch.bfloat16):
        logits = host(inputs)
        (logits.float() * torch.randn(4, ANSWERS)).sum().backward()
    torch.testing.assert_close(logits.float(), host(inputs), rtol=0.1, atol=0.1)
    assert all(torch.isfinite(p.grad).all() for p in host.parameters())


def test_weights_reach_the_question_encoder():
    with pytest.raises(ValueError, match="weights must have 'embedding'"):
        att(weights={})
    with pytest.raises(ValueError, match="weights must have 'embedding'"):
        no_att(weights={})


@param(
    "build, inputs, message",
    [
        (att, TOKENS, r"inputs must be \[tokens, image\], got one tensor"),
        (att, [TOKENS], "got 1; load both"),
        (att, [TOKENS, torch.ones(4, IMAGE)], r"image must be \(4, regions, 6\)"),
        (no_att, [TOKENS, torch.ones(4, 2, 7)], r"\(4, 6\) or \(4, regions, 6\), .* \(4, 2, 7\)"),
        (no_att, [TOKENS, torch.ones(3, IMAGE)], r"a row for each question, got \(3, 6\)"),
    ],
)
def test_inputs_that_do_not_fit_are_refused(build, inputs, message):
    with pytest.raises(ValueError, match=message):
        build()(inputs)
