"""OGM-GE, MMPareto and I2MoE around any fusion: gradients by hand, the protocol, refusals."""

import math
import re
from contextlib import contextmanager
from dataclasses import replace
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from deq_fusion.datasets.loaders import make_loaders
from deq_fusion.examples.digits.recipe import recipe as digits
from deq_fusion.examples.own_dataset import recipe as two_signs
from deq_fusion.examples.paradigms.balanced import OnTheFly, Pareto
from deq_fusion.examples.paradigms.systems import paradigms
from deq_fusion.fusions.deq import DEQFusion
from deq_fusion.fusions.registry import FUSIONS
from deq_fusion.training_structures.comparison import command_line
from deq_fusion.training_structures.comparison.methods import SYSTEM, gather
from deq_fusion.training_structures.comparison.single_run import run_fusion
from deq_fusion.training_structures.fit import fit
from deq_fusion.training_structures.pareto import weights

NEWER = ("ogm_ge", "mmpareto", "i2moe")
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
    given = {"modalities": NAMES, "load": load, "floors": {}, "systems": {}, "epochs": 5}
    return replace(digits(), **(given | options))


def built(name, recipe=None, **options):
    """A system's model in double precision, in training mode, and a batch."""
    recipe = small() if recipe is None else recipe
    met = paradigms()[name].meet(recipe, **options)
    torch.manual_seed(0)
    train, *_ = recipe.loaders(0)
    model = met.build(None, train).double().train()
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    *inputs, truth = next(iter(train))
    return model, [x.double() for x in inputs], truth


def learnt(model, inputs, truth):
    """Gradients of a step as `fit` takes it, by parameter."""
    model.zero_grad()
    (F.cross_entropy(model(inputs), truth) + model.supervised_loss(truth)).backward()
    return {id(p): p.grad for p in model.parameters()}


def by_hand(model, inputs, truth):
    """Gradients of the joint loss, and of each head's, as autograd has them."""
    features = [f(x) for f, x in zip(model.host.encoders, inputs, strict=True)]
    predictions = [head(x) for head, x in zip(model.heads, features, strict=True)]
    parameters = list(model.parameters())
    losses = [F.cross_entropy(p, truth) for p in (model.host(inputs), *predictions)]
    found = [
        torch.autograd.grad(loss, parameters, retain_graph=True, materialize_grads=True)
        for loss in losses
    ]
    joint, *own = [{id(p): g for p, g in zip(parameters, each, strict=True)} for each in found]
    return joint, own, predictions


def shares(predictions, truth):
    """The mean probability of the right class, of each modality, by counting."""
    found = []
    for prediction in predictions:
        total = 0.0
        for row, label in zip(prediction.tolist(), truth.tolist(), strict=True):
            total += math.exp(row[label]) / sum(math.exp(x) for x in row)
        found.append(total / len(truth))
    return found


@pytest.mark.parametrize("fusion", ["concat", "deq", "late"])
def test_ogm_ge_reduces_the_gradients_of_the_encoder_that_leads(fusion):
    model, inputs, truth = built("ogm_ge", fusion=fusion, alpha=0.3, noise=False)
    joint, own, predictions = by_hand(model, inputs, truth)
    found = learnt(model, inputs, truth)
    first, second = shares(predictions, truth)
    ratios = first / second, second / first
    factors = [1 - math.tanh(0.3 * r) if r > 1 else 1 for r in ratios]
    assert min(factors) < 1
    of_encoders = set()
    for encoder, factor in zip(model.host.encoders, factors, strict=True):
        for p in encoder.parameters():
            of_encoders.add(id(p))
            torch.testing.assert_close(found[id(p)], factor * joint[id(p)])
    for p in model.parameters():
        if id(p) not in of_encoders:  # the fusion and the head as ever, each new head by its loss
            expected = joint[id(p)] + sum(each[id(p)] for each in own)
            torch.testing.assert_close(found[id(p)], expected)


def test_noise_is_of_the_encoders_alone_and_ends_with_the_step():
    model, inputs, truth = built("ogm_ge")
    quiet, *_ = built("ogm_ge", noise=False)
    found, expected = (list(learnt(m, inputs, truth).values()) for m in (model, quiet))
    count = len(list(model.host.encoders.parameters()))
    alike = [torch.equal(a, b) for a, b in zip(found, expected, strict=True)]
    assert not any(alike[:count]) and all(alike[count:]) and model.handles
    model.eval()
    F.cross_entropy(model(inputs), truth).backward()
    assert not model.handles and model.supervised_loss(truth) == 0.0


@pytest.mark.parametrize("fusion", ["concat", "deq"])
@pytest.mark.parametrize("agree", [False, True])
def test_mmpareto_combines_the_gradients_of_each_encoder(fusion, agree):
    model, inputs, truth = built("mmpareto", fusion=fusion)
    joint, own, _ = by_hand(model, inputs, truth)
    first = list(model.host.encoders[0].parameters())
    same = sum((joint[id(p)] * own[0][id(p)]).sum() for p in first) > 0
    sign = 1 if same == agree else -1  # of the heads' losses
    model.loss = lambda p, t: sign * F.cross_entropy(p, t)
    found, products = learnt(model, inputs, truth), []
    for encoder, of_head in zip(model.host.encoders, own, strict=True):
        parameters = list(encoder.parameters())
        g, u = [joint[id(p)] for p in parameters], [sign * of_head[id(p)] for p in parameters]
        products.append(sum((x * y).sum() for x, y in zip(g, u, strict=True)))
        a, b = weights(g, u, 1.5)
        for p, x, y in zip(parameters, g, u, strict=True):
            torch.testing.assert_close(found[id(p)], a * x + b * y)
    assert (products[0] > 0) == agree
    others = [*model.host.head.parameters()]
    torch.testing.assert_close([found[id(p)] for p in others], [joint[id(p)] for p in others])


class Told(nn.Module):
    """A host that tells its fusion who has what."""

    def __init__(self, fusion, present):
        super().__init__()
        self.encoders = nn.ModuleList(nn.Linear(3, 4) for _ in range(2))
        self.fusion, self.present = fusion, present

    def forward(self, inputs):
        features = [f(x) for f, x in zip(self.encoders, inputs, strict=True)]
        return self.fusion(features, present=self.present)


@pytest.mark.parametrize("fusion", ["sum", "deq"])
@pytest.mark.parametrize("cls", [OnTheFly, Pareto])
def test_a_head_learns_from_the_samples_that_have_its_modality(cls, fusion):
    present = torch.tensor([[True, False], [True, True], [False, True], [True, False]])
    for nobody in (False, True):
        here = present.clone()
        here[:, 1] &= not nobody
        here[:, 0] |= nobody
        module, _ = FUSIONS[fusion]([4, 4], 4)
        host = Told(module, here)
        how = {"alpha": 0.1, "noise": True, "labels": False} if cls is OnTheFly else {"gamma": 1.5}
        model = cls(host, module, [4, 4], 3, loss=F.cross_entropy, **how).train()
        inputs, truth = [torch.randn(4, 3) for _ in range(2)], torch.tensor([0, 2, 1, 1])
        output = model(inputs)
        total = 0.0
        for encoder, head, x, who in zip(host.encoders, model.heads, inputs, here.T, strict=True):
            if who.any():
                total += F.cross_entropy(head(encoder(x))[who], truth[who]).item()
        loss = model.supervised_loss(truth)
        assert loss.item() == pytest.approx(total, rel=1e-5)
        (output.square().sum() + loss).backward()
        assert all(p.grad.isfinite().all() for p in model.parameters() if p.grad is not None)


@pytest.mark.parametrize("name", NEWER)
def test_a_batch_of_one_and_any_fusion_of_the_registry(name):
    for fusion in ("attention", "tensor", "gmu"):
        model, inputs, truth = built(name, fusion=fusion)
        prediction = model([x[:1] for x in inputs])
        extra = model.fusion.auxiliary_loss if name == "i2moe" else model.supervised_loss(truth[:1])
        (F.cross_entropy(prediction, truth[:1]) + extra).backward()
        assert all(p.grad.isfinite().all() for p in model.parameters() if p.grad is not None)


def test_a_host_must_call_its_fusion_once_and_have_encoders():
    class Host(nn.Module):
        def __init__(self, calls, learns):
            super().__init__()
            self.encoder = nn.Linear(4, 4) if learns else nn.Identity()
            self.fusion, self.calls = nn.Identity(), calls

        def forward(self, inputs):
            for _ in range(self.calls):
                self.fusion([self.encoder(x) for x in inputs])
            return inputs[0]

    for calls, learns, message in (
        (0, True, "once a batch, but Host called it 0 times"),
        (2, True, "once a batch, but Host called it 2 times"),
        (1, False, "encoders that learn before the fusion, but Host has none"),
    ):
        host = Host(calls, learns)
        model = Pareto(host, host.fusion, [4, 4], 2, loss=F.cross_entropy, gamma=1.0).train()
        with pytest.raises(ValueError, match=message):
            model([torch.randn(3, 4)] * 2)


def method(name, recipe, options):
    recipe = replace(recipe, fusion_options={**recipe.fusion_options, name: options})
    (found,), reasons = gather(recipe, {name: paradigms()[name]}, unimodal=False)
    assert not reasons and found.kind == SYSTEM
    return found


class Killed(Exception):
    pass


@pytest.mark.parametrize("name", NEWER)
def test_a_killed_run_ends_as_the_undisturbed_one(name, tmp_path, monkeypatch):
    module = "deq_fusion.training_structures.comparison.single_run"
    monkeypatch.setattr(f"{module}.CHECKPOINT_SECONDS", 0.0)
    run = method(name, small(), {})
    expected = run_fusion(run, 3)

    @contextmanager
    def watch(*what):
        def look(history):
            if len(history.epochs) == 3:
                raise Killed

        yield look

    with pytest.raises(Killed):
        run_fusion(run, 3, checkpoint=tmp_path / "c", watch=watch)
    assert (tmp_path / "c").exists()
    found = run_fusion(run, 3, checkpoint=tmp_path / "c")
    assert found["scores"] == expected["scores"] and found["curve"] == expected["curve"]


@pytest.mark.slow
@pytest.mark.parametrize("name", NEWER)
def test_by_the_protocol_it_learns_and_may_be_without_a_modality(name):
    found = run_fusion(method(name, small(epochs=10), {}), 3, drop_modality=True)
    assert found["scores"]["accuracy"] > 0.8
    missing = {name: scores["accuracy"] for name, scores in found["missing"].items()}
    assert missing[NAMES[0]] < 0.6 < missing[NAMES[1]]


@pytest.mark.slow
def test_the_command_line_names_the_fusion_of_a_system(tmp_path, capsys):
    systems = {name: paradigms()[name] for name in NEWER}

    def recipe(data_dir=None):
        return small(systems=systems)

    def typed(text, folder="results"):
        argv = ["--epochs", "1", "--runs", "1", "--no-unimodal", *text.split()]
        told = {"program": "it", "systems": {"small": lambda: systems}}
        argv += ["--output", str(tmp_path / folder)]
        return command_line({"small": recipe}, FUSIONS, argv, **told)

    asked = " ".join(f"--option {name}.fusion=weighted_sum" for name in systems)
    found = typed(f"--fusions {','.join(systems)} {asked} --option ogm_ge.alpha=0.5")
    stored = {x["method"]: x["settings"] for x in found.results}
    assert stored["ogm_ge"]["options"] == "{'fusion': 'weighted_sum', 'alpha': 0.5}"
    assert stored["ogm_ge"]["epochs"] == "1" and "alpha=0.5" in stored["ogm_ge"]["build"]
    assert all("name='weighted_sum'" in stored[name]["build"] for name in systems)
    for text, message in (
        ("--fusions i2moe --option i2moe.fusion=late", "one that a head can follow, .*got 'late'"),
        ("--fusions i2moe --option i2moe.fusion=nothing", "got 'nothing'"),
        ("--fusions ogm_ge --option ogm_ge.fusion=mutual", "fusion must be one, of attention, "),
        ("--fusions ogm_ge --option ogm_ge.alpha=0", "alpha must be a positive number, got 0"),
        ("--fusions ogm_ge --option ogm_ge.beta=1", "has no option beta; .*are: fusion, alpha, n"),
        ("--fusions ogm_ge --option i2moe.weight=1", r"i2moe.weight must be of .*\['ogm_ge'\]"),
        ("--fusions all --option sums.a=1", "sums.a must be of a fusion in"),
    ):
        with pytest.raises(SystemExit):
            typed(text, "others")
        error = capsys.readouterr().err
        assert re.search(message, error), error


def test_settings_are_the_same_in_every_process():
    for name in (*NEWER, "gradient_blend"):
        settings = method(name, small(), {"fusion": "deq"}).settings()
        assert "name='deq'" in settings["build"]
        assert not [text for text in settings.values() if " at 0x" in text]


@pytest.mark.parametrize(
    ("name", "changes", "options", "message"),
    [
        ("ogm_ge", {"task": "regression"}, {}, "compares probabilities"),
        ("ogm_ge", {"train": partial(fit, clip_norm=1.0)}, {}, "a plain training"),
        ("mmpareto", {}, {"gamma": -1}, "gamma must be a positive number, got -1"),
        ("mmpareto", {}, {"fusion": "interactions3"}, "interactions3 takes 3 modalities"),
        ("i2moe", {"features": "sequences"}, {}, "takes vectors, and this benchmark fuses"),
        ("i2moe", {}, {"weight": -1}, "weight must be a number of at least 0, got -1"),
    ],
)
def test_what_they_cannot_take_is_refused_with_the_reason(name, changes, options, message):
    recipe = replace(two_signs(), fusion_options={name: options}, **changes)
    _, reasons = gather(recipe, {name: paradigms()[name]}, unimodal=False)
    assert message in reasons[name]


@pytest.mark.parametrize("name", NEWER)
def test_groups_of_the_recipe_and_the_rate_of_the_fusion_are_kept(name):
    def halves(model):
        return [{"params": list(model.encoders.parameters()), "lr": 0.1}]

    def found(recipe):
        met = paradigms()[name].meet(recipe, fusion="deq")
        model = met.build(None, met.loaders(0)[0])
        return model, met.parameters(model) if met.parameters else None

    model, groups = found(small(parameters=halves))
    extra = [] if name == "i2moe" else list(model.heads.parameters())
    assert groups[0]["lr"] == 0.1 and [id(p) for p in extra] == [
        id(p) for group in groups[1:] for p in group["params"]
    ]
    model, groups = found(small(fusion_lr={"deq": 0.2}, fusion_options={"deq": {"groups": 2}}))
    fusions = [m for m in model.modules() if isinstance(m, DEQFusion)]
    assert len(fusions) == (4 if name == "i2moe" else 1) and fusions[0].groups == 2
    slow = {id(p) for fusion in fusions for p in fusion.parameters()}
    assert groups[0]["lr"] == 0.2 and {id(p) for p in groups[0]["params"]} == slow
    every = [id(p) for group in groups for p in group["params"]]
    assert sorted(every) == sorted(id(p) for p in model.parameters()) and "lr" not in groups[1]
    assert found(small())[1] is None


def test_labels_and_numbers():
    marks = F.one_hot(LABELS, 10).float()
    loss = nn.functional.binary_cross_entropy_with_logits
    recipe = small(task="multilabel", objective=loss)
    model, inputs, _ = built("ogm_ge", recipe, noise=False)
    model(inputs)
    assert model.supervised_loss(marks[: len(inputs[0])].double()).isfinite() and model.labels
    model, inputs, _ = built("i2moe", small(task="regression"))
    assert model.fusion.numbers
