"""Gradient blending of a recipe's network, as a system: heads, trials, the protocol, refusals."""

from contextlib import contextmanager
from dataclasses import replace
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from deq_fusion.datasets.loaders import make_loaders
from deq_fusion.examples.brca.recipe import recipe as brca
from deq_fusion.examples.digits.recipe import recipe as digits
from deq_fusion.examples.paradigms.blended import BLEND, Alone, Blended, blended, pooled
from deq_fusion.examples.synthetic.recipe import recipe as synthetic
from deq_fusion.training_structures.blending import fit_blended
from deq_fusion.training_structures.comparison.methods import SYSTEM, gather
from deq_fusion.training_structures.comparison.single_run import run_fusion

NAMES = ("top left", "top right")
LABELS = torch.tensor([0, 1, 2, 0, 1, 2, 2, 1]).repeat(3)


def load(run, modalities):
    generator = torch.Generator().manual_seed(run)

    def part():
        views = [torch.randn(len(LABELS), 16, generator=generator) for _ in modalities]
        views[0][:, :3] += 5 * F.one_hot(LABELS)  # the first one tells
        return [view.numpy() for view in views], LABELS.numpy()

    return make_loaders([part(), part(), part()], batch_size=8)


def small(**options):
    recipe = replace(digits(), modalities=NAMES, load=load, floors={}, systems={}, epochs=5)
    return replace(recipe, **options)


def built(system, recipe):
    met = system.meet(recipe)
    return met.build(None, met.loaders(0)[0]).eval()


def batch(recipe):
    *inputs, truth = next(iter(recipe.loaders(0)[1]))
    return inputs, truth


def features_of(model, inputs):
    return [encoder(x) for encoder, x in zip(model.host.encoders, inputs, strict=True)]


def test_a_model_predicts_as_its_host_and_when_blending_with_every_head():
    recipe = small()
    model, (inputs, _) = built(blended(), recipe), batch(recipe)
    expected = model.host(inputs)
    torch.testing.assert_close(model(inputs), expected)
    model.round = BLEND
    prediction, heads = model(inputs)
    torch.testing.assert_close(prediction, expected)
    features = features_of(model, inputs)
    alone = [head(x) for head, x in zip(model.heads, features, strict=True)]
    torch.testing.assert_close([*heads.predictions], alone)
    assert heads.weights is model.weights and heads.extras == ()
    assert len(alone) == 2 and model.weights.tolist() == pytest.approx([1 / 3] * 3)


@pytest.mark.parametrize("fusion", ["concat", "deq"])
def test_a_copy_for_a_trial_ends_at_the_fusion(fusion):
    recipe = small()
    model, (inputs, truth) = built(blended(fusion), recipe), batch(recipe)
    copy = model.alone(1)
    features = features_of(model, inputs)
    torch.testing.assert_close(copy(inputs), model.heads[1](features[1]))
    own = {id(p) for p in model.parameters()}
    assert not any(id(p) in own for p in copy.parameters())
    assert not any(name.startswith("host.fuse") for name, _ in copy.named_parameters())
    F.cross_entropy(copy(inputs), truth).backward()
    assert copy.host.encoders[1].fc.weight.grad.any() and copy.head.weight.grad.any()
    assert not copy.host.encoders[0].fc.weight.grad and copy.host.head.weight.grad is None


def test_sequences_are_seen_by_their_mean():
    x = torch.randn(3, 4, 2, 5)
    torch.testing.assert_close(pooled(x), x.mean((1, 2)))
    assert pooled(x[:, 0, 0]).shape == (3, 5)


class Twice(nn.Module):
    """A host that calls its fusion other than once."""

    def __init__(self, calls):
        super().__init__()
        self.fusion, self.calls = nn.Identity(), calls

    def forward(self, inputs):
        for _ in range(self.calls):
            inputs = self.fusion(inputs)
        return inputs[0]


def test_a_host_must_call_its_fusion_once():
    for calls in (0, 2):
        host = Twice(calls)
        model = Blended(host, host.fusion, [4, 4], 2)
        model.round = BLEND
        with pytest.raises(ValueError, match=f"once a batch, but Twice called it {calls} times"):
            model([torch.randn(3, 4)] * 2)
    with pytest.raises(ValueError, match="once a batch, but Twice did not"):
        Alone(Twice(0), nn.Linear(4, 2), 0)([torch.randn(3, 4)] * 2)
    with pytest.raises(ValueError, match="one fusion, got 0"):
        built(blended(), small(build=lambda fusion, train: nn.Identity()))


def trained(recipe, system, **options):
    (method,), reasons = gather(recipe, {"blend": system}, unimodal=False)
    assert not reasons and method.kind == SYSTEM
    return run_fusion(method, 3, **options)


def test_by_the_protocol_it_learns_and_may_be_without_a_modality():
    options = {"drop_modality": True}
    found, again = (trained(small(epochs=10), blended(every=5), **options) for _ in range(2))
    assert found["scores"] == again["scores"] and found["scores"]["accuracy"] > 0.8
    missing = {name: scores["accuracy"] for name, scores in found["missing"].items()}
    assert missing[NAMES[0]] < 0.6 < 0.8 < missing[NAMES[1]]


class Killed(Exception):
    pass


def test_a_killed_run_ends_as_the_undisturbed_one(tmp_path, monkeypatch):
    recipe, system = small(), blended(every=2)
    module = "deq_fusion.training_structures.comparison.single_run"
    monkeypatch.setattr(f"{module}.CHECKPOINT_SECONDS", 0.0)
    expected = trained(recipe, system)

    @contextmanager
    def watch(*what):
        def look(history):
            if len(history.epochs) == 4:  # the second of an estimate's epochs is not yet written
                raise Killed

        yield look

    with pytest.raises(Killed):
        trained(recipe, system, checkpoint=tmp_path / "c", watch=watch)
    assert (tmp_path / "c").exists()
    found = trained(recipe, system, checkpoint=tmp_path / "c")
    assert found["scores"] == expected["scores"] and found["curve"] == expected["curve"]


def test_a_host_with_a_loss_of_its_own_has_heads_with_another(tmp_path):
    recipe = brca(tmp_path, hidden=8)
    recipe = replace(recipe, modalities=("mRNA", "miRNA"), load=load, floors={}, systems={})
    found = trained(replace(recipe, epochs=3), blended(every=2, of_heads=F.cross_entropy))
    assert found["epochs"] == 3
    met = blended(of_heads=F.cross_entropy).meet(recipe)
    model = met.build(None, met.loaders(0)[0])
    model.round = BLEND
    _, heads = model(batch(recipe)[0])
    assert heads.extras[0].keys() == {"gates", "view_logits", "confidences"}


def test_options_of_the_fusion_and_groups_of_the_recipe_are_kept():
    def halves(model):
        return [{"params": model.encoders.parameters(), "lr": 0.1}]

    recipe = small(parameters=halves, fusion_options={"deq": {"groups": 2}})
    met = blended("deq").meet(recipe)
    model = met.build(None, met.loaders(0)[0])
    found = met.parameters(model)
    assert found[0]["lr"] == 0.1 and len(found[1]["params"]) == 4  # of two heads
    assert model.host.fuse.groups == 2


def test_it_is_refused_with_a_reason():
    _, reasons = gather(synthetic(steps=3), {"blend": blended()}, unimodal=False)
    assert reasons == {"blend": "concat does not take sequences"}
    _, reasons = gather(small().restricted(NAMES[:1]), {"blend": blended()}, unimodal=False)
    assert "takes 2 or more modalities" in reasons["blend"]
    other = small(train=partial(fit_blended, every=1))
    with pytest.raises(ValueError, match="plain training"):
        blended().meet(other)
    for name in ("late", "nothing"):
        with pytest.raises(ValueError, match=f"a head can follow, of attention.*got '{name}'"):
            blended(name)
