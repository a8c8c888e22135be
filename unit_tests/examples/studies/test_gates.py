"""The shares of the gate are those of the formula, of the samples and the noise they are said to be
of."""

from types import SimpleNamespace

import pytest
import torch
from scipy import stats
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from deq_fusion.examples.digits.recipe import recipe as digits
from deq_fusion.examples.studies.gates import measure as gates_measure
from deq_fusion.examples.studies.gates.measure import gates_of, groups_of, measure
from deq_fusion.examples.studies.gates.rows import ROWS, NoisyFusion, with_noise
from deq_fusion.examples.studies.study import entries
from deq_fusion.fusions.analysis import trace
from deq_fusion.fusions.deq import DEQFusion
from deq_fusion.training_structures.comparison.methods import gather
from deq_fusion.training_structures.comparison.single_run import Trained
from deq_fusion.training_structures.evaluation import predict

WIDTHS, DIM, STEPS = (5, 8, 3), 8, 6
NAMES = ("sound", "image", "text")


class Model(nn.Module):
    """A fusion between an encoder that scales and a head."""

    def __init__(self, fusion):
        super().__init__()
        self.fusion, self.head = fusion, nn.Linear(DIM, 2)

    def forward(self, inputs):
        return self.head(self.fusion([3 * x for x in inputs]))


def make_fusion(**options):
    options = {"groups": 2, "on_failure": "ignore", "start": 0.5, **options}
    return DEQFusion(WIDTHS, DIM, **options)


def make_inputs(samples):
    return [torch.randn(samples, width) for width in WIDTHS]


def make_trained(fusion, *, samples=20, wrapped=None):
    """A model of the fusion whose test part has four batches, and a recipe to look at it by."""
    inputs, truth = make_inputs(samples), torch.arange(samples) % 3
    test = DataLoader(TensorDataset(*inputs, truth), batch_size=6)
    trained = Trained(Model(wrapped or fusion), [wrapped or fusion], None, (None, None, test))
    return trained, SimpleNamespace(part="test", task="classification", modalities=NAMES), inputs


def new_states(fusion, features, state):
    """Equation 8, with the features projected and of unit rms, modality by modality."""
    w1, b1, w2, b2, scale, shift = (t.detach().double() for t in fusion.unimodal.tensors())

    def norm(x, k, i):
        return nn.functional.group_norm(x, 2) * scale[k, i] + shift[k, i]

    found = []
    for i, x in enumerate(features):
        y = x.detach().double() @ fusion.projections[i].weight.detach().double().T
        x = y / y.square().mean(1, keepdim=True).sqrt()
        h = torch.relu(norm(state[:, i] @ w1[i] + b1[i], 0, i))
        found.append(norm(torch.relu(norm(h @ w2[i] + b2[i] + x, 1, i)), 2, i))
    return found


def by_the_formula(fusion, features, steps, members=None):
    """mean |W (z + z_i) + b| of a modality over the sum of the modalities', sample by sample, with
    the new z_i (equation 9), from the states that the fusion shows when it solves jointly."""
    seen = [torch.zeros(len(features[0]), len(features) + 1, DIM, dtype=torch.float64)]
    before, fusion.joint = (fusion.equilibrium, fusion.joint), True
    fusion.equilibrium = fusion.equilibrium.__class__(
        solver=before[0].solver, tol=0.0, max_steps=steps, on_failure="ignore"
    )
    fusion.eval()
    fusion(features, observe=lambda step: seen.append(step.state.detach().double()))
    fusion.equilibrium, fusion.joint = before
    weight, bias = (t.detach().double() for t in (fusion.fuse.gate_weight, fusion.fuse.gate_bias))
    table = []
    for state in seen[:steps]:  # the solve starts at the image of zero
        z_i = new_states(fusion, features, state)
        sums = [0.0] * len(features)
        for sample in range(len(state)) if members is None else members:
            for i in range(len(features)):
                alpha = weight @ (state[sample, -1] + z_i[i][sample]) + bias
                sums[i] += sum(abs(float(a)) for a in alpha)
        table.append([total / sum(sums) for total in sums])
    return torch.tensor(table, dtype=torch.float64)


def assert_shares(found, expected):
    torch.testing.assert_close(
        torch.tensor(found, dtype=torch.float64), expected, atol=2e-5, rtol=0
    )


@pytest.mark.parametrize("solver", ["anderson", "picard"])
def test_shares_of_all_and_of_every_class_are_those_of_the_formula(solver, monkeypatch):
    monkeypatch.setattr(gates_measure, "CHUNK", 7)  # solved apart, and told together
    fusion = make_fusion(solver=solver)
    trained, recipe, inputs = make_trained(fusion)
    result = measure(trained, recipe, steps=STEPS, samples=100)
    features = [3 * x for x in inputs]
    assert result["samples"] == 20 and len(result["shares"]) == STEPS
    assert_shares(result["shares"], by_the_formula(fusion, features, STEPS))
    assert list(result["groups"]) == ["class 0", "class 1", "class 2"]
    for k, group in enumerate(result["groups"].values()):
        members = list(range(k, 20, 3))
        assert group["samples"] == len(members)
        assert_shares(group["shares"], by_the_formula(fusion, features, STEPS, members))
    shares = torch.tensor(result["shares"])
    assert (shares[0] - shares[-1]).abs().max() > 1e-3  # or the steps would not be told apart


def test_noise_at_inference_is_in_one_modality_at_a_time():
    fusion = make_fusion()
    trained, recipe, inputs = make_trained(fusion)
    result = measure(trained, recipe, steps=3, samples=100)
    assert list(result["noise_at_inference"]) == list(NAMES)
    for i, curves in enumerate(result["noise_at_inference"].values()):
        noisy = with_noise([3 * x for x in inputs], i, torch.Generator().manual_seed(0))
        assert_shares(curves, by_the_formula(fusion, noisy, 3))
        assert curves != result["shares"]


def test_a_fusion_trained_with_noise_is_asked_about_the_noise_it_is_scored_with():
    fusion = make_fusion()
    trained, recipe, _ = make_trained(fusion, wrapped=NoisyFusion(fusion, 1))
    met = []
    handle = fusion.register_forward_pre_hook(lambda _, args: met.append(args[0]))
    predict(trained.model, trained.loaders[2])
    handle.remove()
    result = measure(trained, recipe, steps=3, samples=100)
    features = [torch.cat(parts) for parts in zip(*met, strict=True)]
    assert_shares(result["shares"], by_the_formula(fusion, features, 3))
    assert "noise_at_inference" not in result


def test_only_as_many_batches_are_read_as_asked_for_and_of_the_part_that_is_scored():
    fusion = make_fusion()
    trained, recipe, inputs = make_trained(fusion)
    recipe.part, trained.loaders = "valid", (None, trained.loaders[2], None)
    result = measure(trained, recipe, steps=2, samples=7)
    assert result["samples"] == 12  # two batches
    assert_shares(result["shares"], by_the_formula(fusion, [3 * x[:12] for x in inputs], 2))


def test_a_sample_that_has_arrived_stays_where_it_is():
    fusion = make_fusion(start=1e-3, solver="picard")
    features, steps = make_inputs(4), 12
    shown = trace(fusion, features, joint=True, steps=steps)["joint"].gates
    assert shown[-1].isnan().any() or len(shown) < steps  # some arrived, to the last bit
    gates = gates_of(fusion, features, steps)
    assert gates.shape == (steps, 4, 3) and gates[1].ne(gates[0]).all()
    for step in range(steps):
        for sample in range(4):
            there = step < len(shown) and not shown[step, sample].isnan().any()
            expected = shown[step, sample] if there else gates[step - 1, sample]
            assert torch.equal(gates[step, sample], expected)


def test_other_fusions_have_no_gate_to_tell_of():
    class Sum(nn.Module):
        def forward(self, features):
            return features[1]

    trained, recipe, _ = make_trained(Sum())
    assert measure(trained, recipe, steps=2, samples=5) == {}


@pytest.mark.parametrize(
    ("task", "truth", "expected"),
    [
        ("classification", [2, 0, 2], {"class 0": [1], "class 2": [0, 2]}),
        ("classification", [[1], [1], [0]], {"class 0": [2], "class 1": [0, 1]}),
        ("multilabel", [[1, 0, 0], [1, 0, 1]], {"label 0": [0, 1], "label 2": [1]}),
        (
            "regression",
            [[-1.5], [0.0], [2.0], [0.1]],
            {"below zero": [0], "zero": [1], "above zero": [2, 3]},
        ),
        ("regression", [[1.0], [2.0]], {"above zero": [0, 1]}),
        ("regression", [[1.0, 2.0], [2.0, 1.0]], {}),
    ],
)
def test_groups_are_those_of_the_task(task, truth, expected):
    found = groups_of(torch.tensor(truth), task)
    assert {name: has.nonzero().flatten().tolist() for name, has in found.items()} == expected
    assert list(found) == list(expected)


def test_truths_of_another_form_have_no_groups():
    assert groups_of({"answer": torch.zeros(3)}, "multilabel") == {}


def test_noise_has_the_size_of_the_features_and_leaves_the_others_alone():
    features = [(10.0 ** torch.randint(-3, 4, (40, 1))) * torch.randn(40, 500) for _ in range(3)]
    features[1][7] = 0
    features = [x.requires_grad_() for x in features]
    noisy = with_noise(features, 1)
    assert noisy[0] is features[0] and noisy[2] is features[2]
    rms = [x.square().mean(-1).sqrt() for x in (noisy[1], features[1])]
    torch.testing.assert_close(*rms)
    assert not noisy[1].requires_grad
    kept = torch.arange(40) != 7
    shape = (noisy[1] / rms[0].unsqueeze(1))[kept].detach().flatten().numpy()
    assert stats.kstest(shape, "norm").pvalue > 1e-3
    alike = nn.functional.cosine_similarity(noisy[1], features[1], dim=1).abs()
    assert alike.max() < 0.25  # 5 standard deviations of chance


def test_noise_is_fresh_in_training_and_the_same_in_every_evaluation():
    class Seen(nn.Module):
        def forward(self, features, *, present=None):
            return features[0]

    fusion, features = NoisyFusion(Seen(), 0), make_inputs(4)
    assert not torch.equal(fusion(features), fusion(features))

    def evaluation():
        fusion.eval()
        return [fusion(features) for _ in range(3)]

    first = evaluation()
    fusion.train()
    fusion(features)
    torch.manual_seed(5)
    second = evaluation()
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
    assert not torch.equal(first[0], first[1])  # batches do not share their noise


def test_a_noisy_fusion_is_one_to_training():
    fusion = make_fusion(jacobian_weight=1.0)
    noisy, features = NoisyFusion(fusion, 2), make_inputs(4)
    present = torch.tensor([[True, True, False]] * 4)
    torch.testing.assert_close(
        noisy.eval()(features, present=present), fusion(features, present=present)
    )  # the noise is absent, too
    noisy.train()(features)
    solving = [m for m in noisy.modules() if getattr(m, "info", None) is not None]
    assert solving == [fusion] and fusion.auxiliary_loss > 0
    assert sum(p.numel() for p in noisy.parameters()) == sum(p.numel() for p in fusion.parameters())


def test_rows_that_lack_their_modality_are_left_out():
    recipe = digits()
    for count, kept in ((1, 0), (2, 2), (3, 3), (4, 4)):
        chosen = recipe.restricted(recipe.modalities[:count])
        methods, skipped = gather(chosen, entries(ROWS, "raw"), unimodal=False)
        names = ["full", *(f"noise_in_modality_{i + 1}" for i in range(kept))]
        assert [m.name for m in methods] == names
        assert list(skipped) == [f"noise_in_modality_{i + 1}" for i in range(kept, 4)]
