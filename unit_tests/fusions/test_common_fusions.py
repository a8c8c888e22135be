"""MultiBench's simple fusions: names, shapes, and the formulas computed again."""

import itertools
import pickle

import pytest
import torch
from torch import nn
from torch.autograd import gradcheck
from torch.testing import assert_close

from deq_fusion.fusions import common_fusions
from deq_fusion.fusions.common_fusions import (
    Concat,
    ConcatEarly,
    ConcatWithLinear,
    FiLM,
    NLgate,
    Stack,
)

LINEARS = {"q_linear": (4, 6), "k_linear": (5, 15), "v_linear": (5, 15)}


def test_concat_flattens_in_the_order_of_the_list():
    x, y = torch.randn(4, 2, 3), torch.randn(4, 5)
    fused = Concat()(iter([x, y]))
    assert fused.shape == (4, 11)
    for row in range(4):
        assert fused[row].tolist() == [*itertools.chain(*x[row].tolist()), *y[row].tolist()]


def test_concat_early_joins_every_step():
    x, y, z = torch.randn(4, 3, 2), torch.randn(4, 3, 5), torch.randn(4, 3, 1)
    fused = ConcatEarly()(iter([x, y, z]))
    assert fused.shape == (4, 3, 8)
    for row, step in itertools.product(range(4), range(3)):
        expected = [value for part in (x, y, z) for value in part[row, step].tolist()]
        assert fused[row, step].tolist() == expected


def test_stack_puts_the_modalities_last():
    x, y = torch.randn(4, 2, 3), torch.randn(4, 6)
    fused = Stack()(iter([x, y]))
    assert fused.shape == (4, 6, 2)
    for row, entry in itertools.product(range(4), range(6)):
        assert fused[row, entry, 0] == x[row, entry // 3, entry % 3]
        assert fused[row, entry, 1] == y[row, entry]


@pytest.mark.parametrize("concat_dim, width, shape", [(1, 2, (1, 4, 3)), (2, 4, (1, 2, 3))])
def test_concat_with_linear_maps_the_last_dimension(double, concat_dim, width, shape):
    model = ConcatWithLinear(width, 3, concat_dim=concat_dim)
    x, y = torch.randn(2, 1, 2, 2)
    fused = model(iter([x, y]))
    assert fused.shape == shape
    for position in itertools.product(*map(range, shape[:2])):
        if concat_dim == 1:
            source = (x, y)[position[1] // 2][0, position[1] % 2]
        else:
            source = torch.tensor([*x[position].tolist(), *y[position].tolist()])
        assert_close(fused[position], model.fc.weight @ source + model.fc.bias)


def test_concat_with_linear_draws_one_linear_layer():
    torch.manual_seed(1)
    weight = ConcatWithLinear(4, 3).fc.weight
    torch.manual_seed(1)
    torch.testing.assert_close(weight, nn.Linear(4, 3).weight, rtol=0, atol=0)


def test_film_scales_and_shifts_the_base_by_the_generators(double):
    gamma, beta = nn.Linear(4, 3), nn.Linear(5, 3)
    model = FiLM(gamma, beta, base_modal=2, gamma_generate_modal=0, beta_generate_modal=1)
    g, b, x = torch.randn(6, 4), torch.randn(6, 5), torch.randn(6, 3)
    scale, shift = g @ gamma.weight.T + gamma.bias, b @ beta.weight.T + beta.bias
    assert_close(model([g, b, x]), scale * x + shift)


def test_film_by_default_modulates_the_first_by_the_second():
    gamma, beta = nn.Linear(4, 3), nn.Linear(4, 3)
    x, g = torch.randn(6, 3), torch.randn(6, 4)
    assert_close(FiLM(gamma, beta)([x, g]), gamma(g) * x + beta(g))


def test_film_refuses_a_list_without_its_modalities():
    model = FiLM(nn.Identity(), nn.Identity(), 0, 1, 2)
    with pytest.raises(ValueError, match=r"reads the modalities \(0, 1, 2\), got 2"):
        model([torch.randn(4, 3)] * 2)


def nonlocal_block(query, key, value):
    """One sample of q + softmax(q k) v, entry by entry."""
    result = query.clone()
    for position in range(len(query)):
        scores = torch.stack([query[position] @ key[:, t] for t in range(key.shape[1])])
        shares = scores.exp() / scores.exp().sum()
        for t, share in enumerate(shares):
            result[position] += share * value[t]
    return result.flatten()


@pytest.mark.parametrize("linears", [{}, LINEARS])
def test_nlgate_adds_what_is_attended_to(double, linears):
    model = NLgate(2, 3, 5, **linears)
    x = torch.randn(4, 4 if linears else 6)
    y = torch.randn(4, 5 if linears else 15)
    mapped = [x, y, y]
    if linears:
        layers = model.qli, model.kli, model.vli
        pairs = zip(mapped, layers, strict=True)
        mapped = [z @ layer.weight.T + layer.bias for z, layer in pairs]
    expected = [
        nonlocal_block(q.view(2, 3), k.view(3, 5), v.view(5, 3))
        for q, k, v in zip(*mapped, strict=True)
    ]
    assert_close(model([x, y]), torch.stack(expected))


def test_nlgate_without_linear_layers_takes_the_batch_that_the_views_leave():
    assert NLgate(10, 30, 5)([torch.randn(30, 10), torch.randn(10, 15)]).shape == (1, 300)


def test_nlgate_draws_query_key_and_value_in_this_order():
    torch.manual_seed(1)
    ours = list(NLgate(2, 3, 5, **LINEARS).parameters())
    torch.manual_seed(1)
    expected = [p for sizes in LINEARS.values() for p in nn.Linear(*sizes).parameters()]
    torch.testing.assert_close(ours, expected, rtol=0, atol=0)


def test_nlgate_refuses_what_its_views_do_not_fit():
    model = NLgate(2, 3, 5)
    with pytest.raises(ValueError, match="takes 2 modalities, query and key, got 3"):
        model([torch.randn(4, 6)] * 3)
    with pytest.raises(ValueError, match=r"of k must fill matrices 3 x 5, got shape \(4, 14\)"):
        model([torch.randn(4, 6), torch.randn(4, 14)])
    with pytest.raises(ValueError, match="one batch size, got 4, 3 and 3"):
        model([torch.randn(4, 6), torch.randn(3, 15)])


@pytest.mark.parametrize(
    "model, shapes",
    [
        (ConcatWithLinear(7, 3), [(2, 3), (2, 4)]),
        (FiLM(nn.Linear(4, 3), nn.Linear(4, 3)), [(2, 3), (2, 4)]),
        (NLgate(2, 3, 5, **LINEARS), [(2, 4), (2, 5)]),
    ],
    ids=lambda value: type(value).__name__,
)
def test_gradients(model, shapes):
    model = model.double()
    names, parameters = zip(*model.named_parameters(), strict=True)
    inputs = [torch.randn(shape, dtype=torch.float64, requires_grad=True) for shape in shapes]

    def call(*tensors):
        given = dict(zip(names, tensors[len(shapes) :], strict=True))
        return torch.func.functional_call(model, given, (list(tensors[: len(shapes)]),))

    assert gradcheck(call, (*inputs, *parameters))
    assert call(*inputs, *parameters).dtype == torch.float64
    copy = pickle.loads(pickle.dumps(model))
    assert_close(copy(inputs), model(inputs), rtol=0, atol=0)


@pytest.mark.parametrize(
    "model, names",
    [
        (ConcatWithLinear(7, 3), "fc"),
        (FiLM(nn.Linear(4, 3), nn.Linear(4, 3)), "g_net b_net"),
        (NLgate(2, 3, 5, **LINEARS), "qli kli vli"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_files_cross_to_and_from_multibench(model, names):
    assert {key.split(".")[0] for key in model.state_dict()} == set(names.split())


@pytest.mark.parametrize(
    "name",
    "Concat ConcatEarly Stack ConcatWithLinear FiLM MultiplicativeInteractions2Modal "
    "MultiplicativeInteractions3Modal TensorFusion LowRankTensorFusion NLgate "
    "EarlyFusionTransformer LateFusionTransformer".split(),
)
def test_whole_model_files_find_every_fusion_under_multibenchs_path(name):
    kind = getattr(common_fusions, name)
    assert (kind.__module__, kind.__qualname__) == ("deq_fusion.fusions.common_fusions", name)
    assert pickle.loads(pickle.dumps(kind)) is kind


@pytest.mark.parametrize("shapes", [[(2, 4)], [(2, 3, 4), (2, 2, 4)], [(2, 3, 4), (1, 3, 4)]])
def test_sequences_concatenated_step_by_step_have_one_length(shapes):
    with pytest.raises(ValueError, match=r"modalities must be \(batch, time, width\)"):
        ConcatEarly()([torch.randn(shape) for shape in shapes])


@pytest.mark.parametrize("fusion", [Concat(), ConcatEarly(), Stack()])
def test_an_absent_modality_is_no_tensor(fusion):
    with pytest.raises(TypeError, match=r"modalities\[1\] must be a tensor, got None; .*present"):
        fusion([torch.randn(2, 3, 4), None])
