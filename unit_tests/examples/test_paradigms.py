"""MultiBench's paradigms as systems: each loss by its formula, the search, and what is refused."""

from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest
import torch
from torch import nn

from deq_fusion import compare
from deq_fusion.datasets.loaders import make_loaders
from deq_fusion.examples.own_dataset import recipe as two_signs
from deq_fusion.examples.paradigms import objectives, searched
from deq_fusion.examples.paradigms.hosted import Hosted, Predicting
from deq_fusion.examples.paradigms.objectives import OBJECTIVES
from deq_fusion.examples.paradigms.systems import paradigms
from deq_fusion.objective_functions.regularization import RegularizationLoss
from deq_fusion.training_structures.comparison.methods import SYSTEM, gather
from deq_fusion.training_structures.comparison.single_run import run_fusion
from deq_fusion.training_structures.fit import fit

NAMES = [*OBJECTIVES, "gradient_blend", "mfas"]
SHORT = {"epochs": 1, "search_iter": 1, "num_samples": 2, "max_progression_levels": 2}


def hosted(name, recipe=None):
    """A system's model in training mode, and a batch of the recipe's inputs."""
    recipe = two_signs() if recipe is None else recipe
    train, *_ = recipe.loaders(0)
    torch.manual_seed(0)
    model = OBJECTIVES[name].meet(recipe).build(None, train)
    *inputs, truth = next(iter(train))
    return model.train(), inputs, truth


def seen_by(model, inputs):
    """What reaches the fusion and leaves it, as numpy; the loss is that of the same forward."""
    kept = []
    fusion = model.host.get_submodule(model.place)
    with fusion.register_forward_hook(lambda _, given, made: kept.append((given[0], made))):
        model(inputs)
    (features, fused), loss = kept[0], model.auxiliary_loss.detach()
    return [x.detach().double().numpy() for x in features], fused.detach().double().numpy(), loss


def mlp(module, x):
    """MultiBench's MLP, by its weights."""
    weights = [p.detach().double().numpy() for p in module.parameters()]
    return np.maximum(x @ weights[0].T + weights[1], 0) @ weights[2].T + weights[3]


def cross_entropy(a, b):
    """The mean over a sample's numbers of -(t log s + (1 - t) log(1 - s)), of sigmoids s, t."""
    s, t = 1 / (1 + np.exp(-a)), 1 / (1 + np.exp(-b))
    return -(t * np.log(s) + (1 - t) * np.log(1 - s)).mean(1)


def test_cca_adds_the_correlations_of_every_pair():
    model, inputs, _ = hosted("cca")
    features, _, loss = seen_by(model, inputs)
    total = 0.0
    for a, b in combinations(features, 2):
        a, b = a - a.mean(0), b - b.mean(0)
        n, ridge = len(a) - 1, 1e-3 * np.eye(a.shape[1])
        roots = []
        for x in (a, b):
            values, vectors = np.linalg.eigh(x.T @ x / n + ridge)
            roots.append(vectors @ np.diag(values**-0.5) @ vectors.T)
        singular = np.linalg.svd(roots[0] @ (a.T @ b / n) @ roots[1], compute_uv=False)
        total -= np.sqrt(singular**2 + 1e-3).sum()
    assert float(loss) == pytest.approx(1e-3 * total, rel=1e-4)


def test_refnet_adds_how_far_the_inputs_are_from_what_is_made_of_the_fused_feature():
    model, inputs, _ = hosted("refnet")
    _, fused, loss = seen_by(model, inputs)
    made = np.split(mlp(model.term.parts["refiner"], fused), 2, axis=1)
    pairs = [(part, x.double().numpy()) for part, x in zip(made, inputs, strict=True)]
    norm = np.linalg.norm
    cosines = [(p * x).sum(1) / (norm(p, axis=1) * norm(x, axis=1)) for p, x in pairs]
    assert float(loss) == pytest.approx(0.1 * sum(1 - c.mean() for c in cosines), rel=1e-5)


def test_mfm_adds_inputs_made_of_a_code_of_each_and_that_of_all():
    model, inputs, _ = hosted("mfm_vectors")
    features, fused, loss = seen_by(model, inputs)
    parts, total = model.term.parts, 0.0
    for i, x in enumerate(inputs):
        code = mlp(parts["intermediates"][i], features[i])
        made = mlp(parts["decoders"][i], np.concatenate([code, fused], 1))
        total += cross_entropy(made, x.double().numpy()).mean()
    assert float(loss) == pytest.approx(total / 2, rel=1e-5)


def test_mvae_adds_the_bounds_of_all_and_of_each():
    model, inputs, _ = hosted("mvae")
    torch.manual_seed(5)
    features, fused, loss = seen_by(model, inputs)
    torch.manual_seed(5)  # nothing but the codes is drawn
    weights = [
        [p.detach().double().numpy() for p in expert.parameters()]
        for expert in model.host.get_submodule(model.place).experts
    ]
    pairs = [np.split(x @ w.T + b, 2, 1) for x, (w, b) in zip(features, weights, strict=True)]
    precisions = [1 / (np.exp(v) + 1e-8) for _, v in pairs]
    whole = 1 / (1 + 1e-8) + sum(precisions)
    mean = sum(t * mu for t, (mu, _) in zip(precisions, pairs, strict=True)) / whole
    np.testing.assert_allclose(mean, fused, rtol=1e-4, atol=1e-6)
    decoders, data = model.term.objective.parts["decoders"], [x.double().numpy() for x in inputs]

    def divergence(mu, logvar):
        return (np.exp(logvar) + mu**2 - 1 - logvar).sum(1) / 2

    def drawn(mu, logvar):
        noise = torch.randn(mu.shape).double().numpy()
        return mu + noise * np.exp(logvar / 2)

    codes = [drawn(mean, -np.log(whole)) for _ in decoders]
    made = [cross_entropy(mlp(d, z), x) for d, z, x in zip(decoders, codes, data, strict=True)]
    total = sum(made) + divergence(mean, -np.log(whole))
    for decoder, pair, x in zip(decoders, pairs, data, strict=True):
        total = total + cross_entropy(mlp(decoder, drawn(*pair)), x) + divergence(*pair)
    assert float(loss) == pytest.approx(total.mean() / 2, rel=1e-4)


def test_rmfe_adds_the_regulariser_of_the_whole_model():
    model, inputs, _ = hosted("rmfe")
    torch.manual_seed(5)
    prediction = model(inputs)
    torch.manual_seed(5)
    regulariser = RegularizationLoss(nn.CrossEntropyLoss(), Predicting(model.host), 1e-10, False)
    expected = regulariser(prediction, inputs)
    assert model.auxiliary_loss.item() == pytest.approx(expected.item()) and expected > 0


@pytest.mark.parametrize("name", OBJECTIVES)
def test_a_loss_is_of_training_and_of_two_samples_or_more(name):
    model, inputs, _ = hosted(name)
    model(inputs)
    assert model.auxiliary_loss.requires_grad
    model([x[:1] for x in inputs])
    assert model.auxiliary_loss is None
    model(inputs)
    with torch.no_grad():
        model(inputs)
    assert model.auxiliary_loss is None
    torch.testing.assert_close(model.eval()(inputs), model.host(inputs))
    assert model.auxiliary_loss is None


@pytest.mark.parametrize("own", [False, True])
@pytest.mark.parametrize("name", ["refnet", "mfm_vectors", "mvae"])
def test_what_the_loss_learns_is_trained_also_beside_groups_of_the_recipes(name, own):
    groups = (lambda host: [{"params": list(host.parameters())}]) if own else None
    recipe = replace(two_signs(), parameters=groups)
    model, _, _ = hosted(name, recipe)
    met = OBJECTIVES[name].meet(recipe)
    before = [p.detach().clone() for p in model.parameters()]
    given = list(model.parameters()) if met.parameters is None else met.parameters(model)
    train, valid, _ = recipe.loaders(0)
    options = {"optimizer": lambda p: torch.optim.SGD(p, lr=0.1), "parameters": given}
    fit(model, train, valid, recipe.objective, epochs=1, progress=False, **options)
    assert all(not torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))


def test_a_modality_is_hidden_from_the_fusion():
    model, inputs, _ = hosted("mvae")
    model.eval()
    with model.without(0):
        hidden = model(inputs)
    other = [torch.randn_like(inputs[0]), inputs[1]]
    with model.without(0):
        torch.testing.assert_close(model(other), hidden)
    assert not torch.allclose(model(inputs), hidden)


@pytest.mark.slow
def test_all_are_compared_and_repeat_themselves(monkeypatch):
    monkeypatch.setattr(searched, "BUDGET", SHORT)
    recipe = replace(two_signs(), systems=paradigms(), epochs=2)
    scores = []
    for _ in range(2):
        found = compare(recipe, ["concat", *NAMES], runs=1, unimodal=False, drop_modality=True)
        assert [x["method"] for x in found.results] == ["concat", *NAMES]
        scores.append([x["scores"] for x in found.results])
        assert all(set(x["missing"]) == {"sound", "picture"} for x in found.results)
    assert scores[0] == scores[1]
    kinds = {row.method: row.kind for row in found.table()}
    assert {kinds[name] for name in NAMES} == {SYSTEM}


def search(recipe, **options):
    """A trained model of the search, and its history."""
    met = searched.meet(recipe)
    train, valid, _ = recipe.loaders(0)
    torch.manual_seed(0)
    model = met.build(None, train)
    given = {"optimizer": met.optimizer, "metrics": met.metrics, "select": "accuracy"}
    history = met.train(model, train, valid, met.objective, progress=False, **given, **options)
    return model, history


def in_batches(run, modalities):
    """The loaders of two signs, as the library's own are: they tell no batch size."""
    parts = []
    for loader in two_signs().load(run, modalities):
        *views, labels = (x.numpy() for x in loader.dataset.tensors)
        parts.append((views, labels))
    loaders = make_loaders(parts, batch_size=50)
    assert loaders[0].batch_size is None
    return loaders


def test_the_search_takes_the_configuration_that_scored_best(monkeypatch):
    monkeypatch.setattr(searched, "BUDGET", SHORT)
    kept, asked = [], {}
    own = searched.architecture_search.train

    def noted(*given, **options):
        asked.update(options)
        kept.append(own(*given, **options))
        return kept[-1]

    monkeypatch.setattr(searched.architecture_search, "train", noted)
    model, history = search(replace(two_signs(), load=in_batches), epochs=2)
    assert asked["batch_size"] == 50
    tried = kept[0].known()
    best = max(score for _, score in tried)
    configuration = next(conf for conf, score in tried if score == best)
    assert model.found.conf.tolist() == np.array(configuration).tolist()
    assert len(tried) >= 2 * 2 * 3 and len(history.epochs) == 2
    assert not list(model.encoders) and not any(
        "head" in n for n, _ in model.found.encoders.named_parameters()
    )


def test_a_search_that_is_resumed_ends_as_undisturbed(monkeypatch, tmp_path):
    monkeypatch.setattr(searched, "BUDGET", SHORT)
    path = tmp_path / "run.ckpt"
    whole, _ = search(two_signs(), epochs=3, seed=1)

    def kill(history):
        if len(history.epochs) == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        search(two_signs(), epochs=3, seed=1, checkpoint=path, callbacks=[kill])
    again, history = search(two_signs(), epochs=3, seed=1, checkpoint=path, resume=True)
    assert len(history.epochs) == 3
    for a, b in zip(whole.state_dict().values(), again.state_dict().values(), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=0)


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("cca", {"features": "sequences"}, "takes vectors, and this benchmark fuses sequences"),
        ("mfas", {"task": "regression"}, "maximises a share of samples"),
        ("mfas", {"train": print}, "a plain training"),
    ],
)
def test_what_they_cannot_take_is_refused_with_the_reason(name, changes, message):
    recipe = replace(two_signs(), systems=paradigms(), **changes)
    _, reasons = gather(recipe, {name: recipe.systems[name]}, unimodal=False)
    assert message in reasons[name]


def test_one_modality_is_too_few():
    recipe = replace(two_signs(), systems=paradigms()).restricted(["sound"])
    _, reasons = gather(recipe, recipe.systems, unimodal=False)
    assert set(reasons) == {*NAMES, "ogm_ge", "mmpareto", "i2moe"}


def test_a_model_must_call_its_fusion_once():
    class Twice(nn.Module):
        def __init__(self, fusion):
            super().__init__()
            self.fusion = fusion

        def forward(self, inputs):
            return self.fusion(inputs) + self.fusion(inputs)

    fusion = objectives.Concat()
    model = Hosted(Twice(fusion), fusion, lambda step: step.fused.sum()).train()
    with pytest.raises(ValueError, match="calls its fusion once a batch, but Twice called it 2"):
        model([torch.randn(3, 2), torch.randn(3, 2)])


def test_a_run_tells_what_it_cost():
    recipe = replace(two_signs(), systems=paradigms(), epochs=1)
    methods, _ = gather(recipe, {"cca": recipe.systems["cca"]}, unimodal=False)
    result = run_fusion(methods[-1], 0)
    assert result["parameters"] > 0 and result["epochs"] == 1
