"""How candidates of a search are trained, against a plain loop, and what they share."""

import copy
import io
import os
import pickle
import re
from functools import partial

import numpy as np
import pytest
import torch
from torch import nn

from deq_fusion.fusions.searchable import Searchable
from deq_fusion.training_structures import candidates
from deq_fusion.training_structures.candidates import (
    Trial,
    load_module,
    train_sampled_models,
    train_track_acc,
)
from deq_fusion.utils.scheduler import LRCosineAnnealingScheduler
from unit_tests.training_structures.search_models import (
    QUIET,
    Several,
    encoders,
    loaders,
    sizes,
)

CONFS = [np.array([[1, 2, 0]]), np.array([[1, 2, 0], [0, 1, 1]]), np.array([[1, 2, 1], [0, 0, 1]])]


def tried(configurations=CONFS, *, sharing=False, rate=0.05, epochs=2, files=None, **options):
    files = encoders() if files is None else files
    torch.manual_seed(4)
    return train_sampled_models(
        *(configurations, Searchable, loaders(), sharing, "cpu"),
        *(files, 7, 2, sizes(), 8, epochs),
        *(rate, min(rate, 1e-3), 1, 2),
        **{"trial": QUIET, **options},
    )


def plain_loop(model, data, rates, epochs, loss, predict):
    """Adam, with the rates that are given, by its formula; returns the best accuracy, first one."""
    parameters = [p for p in model.parameters() if p.requires_grad]
    moments = [(torch.zeros_like(p), torch.zeros_like(p)) for p in parameters]
    best, state, step = -1.0, None, 0
    for _ in range(epochs):
        model.train()
        for *inputs, labels in data["train"]:
            value = loss(model(inputs), labels)
            gradients = torch.autograd.grad(value, parameters)
            rate, step = next(rates), step + 1
            for p, g, (first, second) in zip(parameters, gradients, moments, strict=True):
                g = g + 1e-4 * p.detach()
                first.mul_(0.9).add_(0.1 * g)
                second.mul_(0.999).add_(0.001 * g * g)
                scale = (second / (1 - 0.999**step)).sqrt() + 1e-8
                p.data -= rate * (first / (1 - 0.9**step)) / scale
        model.eval()
        with torch.no_grad():
            hits = torch.cat([predict(model(x)).argmax(1) == y for *x, y in data["dev"]])
        if hits.float().mean().item() > best:
            best, state = hits.float().mean().item(), copy.deepcopy(model.state_dict())
    return best, state


def cosine_rates(steps):
    scheduler = LRCosineAnnealingScheduler(0.05, 1e-3, 1, 2, steps)
    while True:
        yield scheduler.step()


def test_a_candidate_is_trained_as_by_a_plain_loop():
    ((score,), (model,)) = tried(CONFS[1:2], epochs=4, return_model=True)
    given = candidates.encoders_of(encoders())
    torch.manual_seed(4)
    expected = Searchable(given, 7, 2, CONFS[1], sizes())
    expected.encoders.requires_grad_(False)
    best, state = plain_loop(
        *(expected, loaders(), cosine_rates(20 / 8), 4),
        nn.functional.cross_entropy,
        lambda logits: logits,
    )
    assert score == pytest.approx(best) and 0.5 < score
    torch.testing.assert_close(dict(model.state_dict()), dict(state), rtol=1e-4, atol=1e-5)
    assert not any(module.training for module in model.modules())


def test_several_predictions_have_a_loss_each_and_are_added_up():
    torch.manual_seed(0)
    model, expected = Several(), Several()
    expected.load_state_dict(model.state_dict())
    optimizer = torch.optim.Adam(model.parameters(), lr=0.05, weight_decay=1e-4)
    score = train_track_acc(
        *(model, [nn.CrossEntropyLoss(), nn.CrossEntropyLoss()], optimizer),
        torch.optim.lr_scheduler.StepLR(optimizer, 1, 0.5),
        *(loaders(), {}, "cpu", 3),
        multitask=True,
        trial=QUIET,
    )

    def loss(outputs, labels):
        return sum(nn.functional.cross_entropy(x, labels) for x in outputs)

    rates = (0.05 * 0.5**epoch for epoch in range(3) for _ in range(3))
    best, state = plain_loop(expected, loaders(), rates, 3, loss, sum)
    assert score == pytest.approx(best)
    torch.testing.assert_close(dict(model.state_dict()), dict(state), rtol=1e-4, atol=1e-5)


def test_encoders_stay_and_learn_again_afterwards():
    given = encoders()
    before = copy.deepcopy([e.state_dict() for e in given])
    _, models = tried(files=given, return_model=True)
    for model in models:
        torch.testing.assert_close(
            [dict(e.state_dict()) for e in model.encoders], before_of(before)
        )
        assert all(p.requires_grad for p in model.parameters())
        assert all(e is not own for e, own in zip(model.encoders, given, strict=True))
    torch.testing.assert_close([dict(e.state_dict()) for e in given], before_of(before))
    assert not any(e.output_each_layer for e in given)
    _, (model, *_) = tried(files=given, return_model=True, train_only_central_params=False)
    for encoder, own in zip(model.encoders, given, strict=True):
        assert not torch.equal(encoder.fc.weight, own.fc.weight)


def before_of(states):
    return [dict(state) for state in states]


def names(model):
    return candidates._shared_names(model)


def test_shared_layers_are_those_of_the_same_place_widths_and_nonlinearity():
    shared = {}
    _, models = tried(sharing=True, return_model=True, state_dict=shared)
    known = [f"{i}.L_{width}_7.A_{kind}" for i, width, kind in
             [(0, 10, "relu"), (1, 16, "sigmoid"), (0, 10, "sigmoid")]]  # fmt: skip
    assert names(models[0]) == known[:1] and names(models[1]) == known[:2]
    assert names(models[2]) == [known[2], "1.L_14_7.A_sigmoid"]
    last = {name: layer for model in models for name, layer in named_layers(model)}
    assert shared.keys() == last.keys()
    for name, layer in last.items():
        torch.testing.assert_close(shared[name], dict(layer.state_dict()))


def named_layers(model):
    return zip(names(model), model.fusion_layers, strict=True)


def test_candidates_start_from_shared_weights_and_with_heads_of_their_own():
    # at a rate of zero they end as they start
    _, alone = tried(rate=0.0, return_model=True)
    _, models = tried(rate=0.0, return_model=True, sharing=True)
    layers = [dict(named_layers(model)) for model in models]
    (common,) = layers[0].keys() & layers[1].keys()
    assert torch.equal(layers[0][common][0].weight, layers[1][common][0].weight)
    starts = [dict(named_layers(model))[common][0].weight for model in alone[:2]]
    assert not torch.equal(*starts)
    assert not torch.equal(models[0].head.weight, models[1].head.weight)
    for model, own in zip(models[1:], alone[1:], strict=True):  # what none had before is drawn
        assert torch.equal(model.fusion_layers[1][0].weight, own.fusion_layers[1][0].weight)


def test_a_later_call_goes_on_from_the_shared_weights():
    shared = {}
    _, (first,) = tried(CONFS[:1], sharing=True, state_dict=shared, return_model=True)
    _, (second,) = tried(CONFS[:1], sharing=True, state_dict=shared, rate=0.0, return_model=True)
    ours, theirs = (model.fusion_layers[0].state_dict() for model in (first, second))
    torch.testing.assert_close(dict(ours), dict(theirs), rtol=0, atol=0)


def test_numbers_choose_candidates_and_premodels_start_them():
    scores, models = tried(return_model=[0, 2])
    assert len(scores) == len(models) == 2
    assert [len(model.conf) for model in models] == [1, 2]
    started = tried(CONFS[:1], premodels=models[:1], rate=0.0, return_model=True)[1][0]
    torch.testing.assert_close(dict(started.state_dict()), dict(models[0].state_dict()))
    assert tried(CONFS[:1], rate=0.0) == tried(CONFS[:1], rate=0.0, return_model=True)[0]


def test_files_and_lines_are_multibenchs(tmp_path, capsys):
    (score,) = tried(CONFS[:1], trial=Trial(folder=tmp_path / "found"))
    (path,) = (tmp_path / "found").iterdir()
    assert path.name == f"best{score:g}.pt"
    said = capsys.readouterr().out.splitlines()
    assert [re.fullmatch(r"(train|dev) Acc: [01]\.\d{4}", line)[1] for line in said] == [
        "train",
        "dev",
    ] * 2
    assert f"dev Acc: {score:.4f}" in said
    kinds = [np.ndarray, np.dtype, np.dtypes.Int64DType, np._core.multiarray._reconstruct]
    with torch.serialization.safe_globals(kinds):
        model = load_module(path)
    assert type(model) is Searchable and not model.training
    assert model.conf.tolist() == CONFS[0].tolist()


def test_the_training_score_is_that_of_the_predictions_made_in_training(capsys):
    def count(prediction, truth):
        return {"count": len(truth) / 100, "accuracy": 0.5}

    tried(CONFS[:1], epochs=1, trial=Trial(folder=None, metrics=count, select="count"))
    assert capsys.readouterr().out == "train Acc: 0.2000\ndev Acc: 0.2000\n"


def test_encoders_come_from_files_of_whole_modules(tmp_path):
    given = encoders()
    files = [tmp_path / f"{i}.pt" for i in range(2)]
    for encoder, file in zip(given, files, strict=True):
        torch.save(encoder, file)
    assert tried(files=files) == tried(files=given)


class Runs:
    def __reduce__(self):
        return os.system, ("true",)


def test_files_that_would_run_code_are_refused(tmp_path):
    for content in (Runs(), {"weight": Runs()}):
        torch.save(content, tmp_path / "bad.pt")
        with pytest.raises(ValueError, match="whose classes have been imported"):
            load_module(tmp_path / "bad.pt")
    (tmp_path / "worse.pt").write_bytes(pickle.dumps(Runs(), protocol=2))
    with pytest.raises(ValueError, match="whose classes have been imported"):
        load_module(tmp_path / "worse.pt")
    torch.save({"weight": torch.ones(1)}, tmp_path / "state.pt")
    with pytest.raises(ValueError, match="a whole module, got dict"):
        load_module(tmp_path / "state.pt")
    stream = io.BytesIO()
    torch.save(nn.Linear(1, 2), stream)
    (tmp_path / "good.pt").write_bytes(stream.getvalue())
    assert load_module(tmp_path / "good.pt").out_features == 2


def test_a_score_that_is_never_a_number_is_an_error():
    trial = Trial(folder=None, quiet=True, metrics=lambda p, t: {"accuracy": float("nan")})
    with pytest.raises(ValueError, match="accuracy was NaN in all 2"):
        tried(CONFS[:1], trial=trial)


def test_lists_of_batches_count_as_loaders():
    data = {part: list(loader) for part, loader in loaders().items()}
    call = partial(train_sampled_models, CONFS[:1], Searchable, data, False, "cpu", encoders())
    (score,) = call(7, 2, sizes(), 8, 1, 0.05, 1e-3, 1, 2, trial=QUIET)
    assert 0 <= score <= 1
