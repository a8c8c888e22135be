"""The search: its steps, its temperatures, its draws, and that it goes on as if never ended."""

import importlib
import math
import re
from itertools import product

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from deq_fusion.fusions.searchable import Searchable
from deq_fusion.training_structures import search_steps
from deq_fusion.training_structures.architecture_search import ModelSearcher, single_test, test
from deq_fusion.training_structures.candidates import Trial
from deq_fusion.training_structures.checkpoint import load_checkpoint, save_checkpoint
from unit_tests.training_structures.search_models import (
    accuracy,
    encoders,
    loaders,
    search,
    sizes,
    surrogate,
)


def plain(data):
    """All that a search knows, as lists."""
    return [(conf.tolist(), score) for conf, score in data.known()]


@pytest.fixture
def tried(monkeypatch):
    """The configurations that were trained, in order."""
    seen, scored = [], search_steps.Steps.scored

    def remembered(self, configuration):
        seen.append(configuration.tolist())
        return scored(self, configuration)

    monkeypatch.setattr(search_steps.Steps, "scored", remembered)
    return seen


@pytest.mark.parametrize("modalities", [2, 3])
def test_all_of_one_layer_are_tried_then_some_that_differ_in_one_layer(tried, modalities):
    known = plain(search(modalities=modalities))
    rows = [list(row) for row in product(range(2), repeat=modalities + 1)]
    first, later = tried[: len(rows)], tried[len(rows) :]
    assert first == [[row] for row in rows]
    assert len(later) == 3 * 3 and [len(conf) for conf in later] == [2] * 9
    added, changed, again = later[:3], later[3:6], later[6:]
    assert all(conf[:1] in first for conf in added)
    assert all(conf[1:] in [known[1:] for known in added] for conf in changed)
    assert all(conf[:1] in [known[:1] for known in changed] for conf in again)
    assert sorted(conf for conf, _ in known) == sorted({str(c): c for c in tried}.values())
    assert all(0 <= score <= 1 for _, score in known)


def test_a_search_repeats_by_its_seed_and_leaves_the_generators_alone():
    first = plain(search())
    torch.manual_seed(9)
    np.random.seed(9)
    second = plain(search())
    torch.manual_seed(9)
    surrogate()
    drawn = np.random.RandomState(9).rand()
    assert np.random.rand() == drawn
    assert first == second != plain(search(seed=6))


class Killed(BaseException):
    pass


class Mortal:
    """Metrics that end the process, as it were, when they are asked for the n-th time."""

    def __init__(self, after):
        self.left = after

    def __call__(self, prediction, truth):
        self.left -= 1
        if self.left < 0:
            raise Killed
        return accuracy(prediction, truth)


SMALL = {"use_weightsharing": True, "alphas": True, "epochs": 2, "labels": [2, 1, 2]}
SMALL |= {"num_samples": 2}  # 4 candidates, then 2 in each of 3 steps, each asked about twice


def started(learner, **options):
    """A search from global generators that are seeded."""
    options = {"unimodal_files": encoders(), **SMALL, **options}
    torch.manual_seed(1)
    np.random.seed(1)
    return search(learner, **options)


@pytest.fixture(scope="module")
def undisturbed():
    """What searches know in the end, and their surrogates, by the seed."""
    learners = {seed: surrogate() for seed in (5, None)}
    return {seed: (plain(started(x, seed=seed)), x) for seed, x in learners.items()}


@pytest.mark.parametrize(("after", "seed"), [(0, 5), (3, 5), (8, 5), (13, 5), (15, None)])
def test_killed_and_resumed_it_ends_as_undisturbed(tmp_path, undisturbed, after, seed):
    expected, learner = undisturbed[seed]
    options = {"checkpoint": tmp_path / "search.ckpt", "resume": True, "seed": seed}
    dying = Trial(folder=None, quiet=True, metrics=Mortal(after))
    with pytest.raises(Killed):
        started(surrogate(), trial=dying, **options)
    resumed = surrogate(seed=7)
    options |= {"unimodal_files": encoders(), **SMALL}
    torch.manual_seed(2)  # another process has other states
    np.random.seed(2)
    assert plain(search(resumed, **options)) == expected
    weights = dict(learner.state_dict())
    torch.testing.assert_close(dict(resumed.state_dict()), weights, rtol=0, atol=0)
    again = surrogate(seed=7)  # what has ended is only read
    assert plain(search(again, trial=dying, **options)) == expected
    torch.testing.assert_close(dict(again.state_dict()), weights, rtol=0, atol=0)


def test_the_checkpoint_of_another_search_is_refused(tmp_path):
    path = tmp_path / "search.ckpt"
    dying = Trial(folder=None, quiet=True, metrics=Mortal(3))
    with pytest.raises(Killed):
        search(trial=dying, checkpoint=path, settings={"data": "a"})
    for changed in (
        {"num_samples": 4},
        {"epochs": 2},
        {"alphas": True},
        {"unimodal_files": encoders(seed=1)},
        {"settings": {"data": "b"}},
        {"labels": [2, 2, 1]},
    ):
        options = {"settings": {"data": "a"}, **changed}
        with pytest.raises(ValueError, match="a run with the same settings"):
            search(checkpoint=path, resume=True, **options)
    with pytest.raises(ValueError, match="needs the path of a checkpoint"):
        search(resume=True)


@pytest.fixture(scope="module")
def contents(tmp_path_factory):
    """The contents of a checkpoint."""
    path = tmp_path_factory.mktemp("search") / "search.ckpt"
    with pytest.raises(Killed):
        search(trial=Trial(folder=None, quiet=True, metrics=Mortal(3)), checkpoint=path)
    return {k: v for k, v in load_checkpoint(path).items() if k != "format"}


@pytest.mark.parametrize(
    "damage",
    [
        {"known": 3},
        {"known": [3]},
        {"known": [(torch.zeros(2), 0.5)]},
        {"known": [(torch.zeros(1, 3), "good")]},
        {"chosen": 3},
        {"sampled": [3]},
        {"scores": ["good"]},
        {"shared": {"0": 3}},
        {"optimizer": {}},
        {"rng": {}},
        {"generators": []},
        {"surrogate": {"hid2val.weight": torch.zeros(2)}},
    ],
)
def test_a_damaged_checkpoint_is_refused_and_changes_nothing(tmp_path, contents, damage):
    path, learner = tmp_path / "search.ckpt", surrogate(seed=8)
    save_checkpoint(path, contents | damage)
    before = {name: value.clone() for name, value in learner.state_dict().items()}
    with pytest.raises(ValueError, match=re.escape(str(path))):
        search(learner, checkpoint=path, resume=True)
    torch.testing.assert_close(dict(learner.state_dict()), before, rtol=0, atol=0)


def test_temperatures_fall_with_every_step_of_every_iteration():
    searcher = ModelSearcher(None, None, 3, 1, 1, 10.0, 0.2, 4.0, 5, 0.001, "cpu")
    temperatures = [searcher.temperature(step) for step in range(15)]
    expected = [10.0] + [0.2 + 9.8 * math.exp(-(((s + 1) / 4) ** 2)) for s in range(14)]
    np.testing.assert_allclose(temperatures, expected, rtol=1e-12)
    assert temperatures == sorted(set(temperatures), reverse=True)


def test_each_step_draws_at_its_temperature(monkeypatch):
    used = []

    def recorded(configurations, scores, k, temperature):
        used.append((len(configurations), k, temperature))
        return list(configurations)[:k]

    monkeypatch.setattr(search_steps.tools, "sample_k_configurations", recorded)
    search(temperature_init=3.0, temperature_final=0.5, temperature_decay=2.0)
    fall = [0.5 + 2.5 * math.exp(-(((s + 1) / 2) ** 2)) for s in range(3)]
    assert used == [(n, 3, pytest.approx(t)) for n, t in zip([8, 24, 24, 24], [3.0, *fall])]  # noqa: B905


def test_lines_and_files_are_multibenchs(tmp_path, capsys):
    known = search(trial=Trial(folder=tmp_path), search_iter=1, max_progression_levels=2)
    said = capsys.readouterr().out
    score = r"((train|dev) Acc: \d\.\d{4}\n)"
    pairs = r"\[\(array\((.|\n)*\)\]\n"
    first = (
        rf"Search iteration 0 \nProgressive step 0 \n{score}{{16}}Predicted accuracies: \n{pairs}"
    )
    first += r"Error on accuracies = \[(.|\n)*?\]\n"
    second = rf"Progressive step 1 \nPredicted accuracies: \n{pairs}{score}{{6}}"
    second += rf"Trained architectures: \n{pairs}with surrogate error: .*\n"
    assert re.fullmatch(first + second, said)
    names = {f"best{score:g}.pt" for _, score in known.known()}
    assert names <= {path.name for path in tmp_path.iterdir()}


@pytest.mark.slow
def test_the_names_of_a_checkout_search_alike():
    def run(root):
        learner = importlib.import_module(f"{root}utils.surrogate").SimpleRecurrentSurrogate(
            6, 3, 5
        )
        data = loaders()
        return importlib.import_module(f"{root}training_structures.architecture_search").train(
            *(encoders(), 7, 2, sizes(), data["train"], data["dev"], learner, (2, 2, 2)),
            **{"epochs": 1, "search_iter": 1, "num_samples": 2, "max_progression_levels": 2},
            **{"seed": 5, "device": "cpu"},
            trial=importlib.import_module(f"{root}training_structures.candidates").Trial(
                folder=None, quiet=True
            ),
        )

    torch.manual_seed(0)
    ours = run("deq_fusion.")
    torch.manual_seed(0)
    bare = run("")
    assert plain(ours) == plain(bare)
    assert type(bare).__module__ == "utils.surrogate"


@pytest.mark.parametrize("labels", [[2, 2], [2, 2, 2, 2], [4, 2, 2], [2, 0, 2], [2, 2, 4]])
def test_choices_that_there_are_not_are_refused(labels):
    with pytest.raises(ValueError, match=r"max_labels must .* from 1 to \[3, 3, 3\]"):
        search(labels=labels)


def test_a_surrogate_of_other_configurations_is_refused():
    with pytest.raises(ValueError, match="number_input_feats=3"):
        search(surrogate(modalities=3))


def test_scores_that_a_surrogate_cannot_predict_are_refused():
    trial = Trial(folder=None, quiet=True, metrics=lambda p, t: {"accuracy": 50.0})
    with pytest.raises(ValueError, match="from 0 to 1, .* 50.0"):
        search(trial=trial)


@pytest.mark.parametrize(
    "name", ["search_iter", "num_samples", "epoch_surrogate", "max_progression_levels"]
)
def test_budgets_are_at_least_one(name):
    with pytest.raises(ValueError, match=f"{name} must be at least 1, got 0"):
        search(**{name: 0})


def test_candidates_may_have_another_loss_and_score():
    def f1(prediction, truth):
        hits = ((prediction > 0) & (truth > 0)).sum()
        return {"f1": float(2 * hits / ((prediction > 0).sum() + (truth > 0).sum() + 1))}

    data = loaders()
    for part, loader in data.items():
        *inputs, labels = loader.dataset.tensors
        both = torch.stack([labels, 1 - labels], 1).float()
        data[part] = DataLoader(TensorDataset(*inputs, both), 8)
    trial = Trial(nn.BCEWithLogitsLoss(), f1, "f1", None, True)
    known = search(data=data, trial=trial, search_iter=1)
    assert 0 < known.get_k_best(1)[1][0] <= 1


def fitted():
    torch.manual_seed(0)
    parts = encoders()
    for part in parts:
        part.output_each_layer = True
    return Searchable(parts, 7, 2, np.array([[1, 1, 0]]), sizes())


def test_a_test_is_the_accuracy_in_evaluation_mode(capsys):
    model, loader = fitted().train(), loaders()["dev"]
    scores = single_test(model, loader, auprc=True)
    assert model.training
    model.eval()
    with torch.no_grad():
        logits = torch.cat([model(inputs) for *inputs, _ in loader])
    labels = loader.dataset.tensors[-1]
    accuracy = sum(int(x[1] > x[0]) == y for x, y in zip(logits, labels, strict=True)) / 20
    assert scores == {"Accuracy": pytest.approx(float(accuracy))}
    order = (logits[:, 1] - logits[:, 0]).argsort(descending=True)
    ranked = labels[order].tolist()
    precisions = [sum(ranked[: i + 1]) / (i + 1) for i in range(20) if ranked[i]]
    said = re.fullmatch(r"test acc: (.*)\nAUPRC: (.*)\n", capsys.readouterr().out)
    assert float(said[1]) == scores["Accuracy"]
    assert float(said[2]) == pytest.approx(sum(precisions) / sum(ranked))


def test_tests_are_of_one_loader_or_of_rising_noise(capsys):
    model, loader = fitted(), loaders()["dev"]
    scores = test(model, loader, "mine", no_robust=True)
    assert scores == single_test(model, loader)
    noisy = test(model, {"a": [loader, loader]}, "mine")
    assert noisy["a"]["Accuracy"]["levels"] == [scores["Accuracy"]] * 2
    assert (
        f"Inference Params: {sum(p.numel() for p in model.parameters())}" in capsys.readouterr().out
    )


test.__test__ = False  # MultiBench's name, no test
