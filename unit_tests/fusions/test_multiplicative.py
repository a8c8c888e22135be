"""Multiplicative interactions are bilinear: the sums written out, and every option."""

import copy
import itertools
import pickle

import pytest
import torch
from torch.autograd import gradcheck
from torch.testing import assert_close

from deq_fusion.fusions.common_fusions import (
    MultiplicativeInteractions2Modal,
    MultiplicativeInteractions3Modal,
)

N, M = 3, 4
OUTPUT_DIMS = {"matrix3D": [5, 2], "matrix": 6, "vector": None, "scalar": None}
every_output = pytest.mark.parametrize("output", OUTPUT_DIMS)


def make(output, **options):
    return MultiplicativeInteractions2Modal([N, M], OUTPUT_DIMS[output], output, **options)


def one_sample(model, x, y):
    """f(x, y) of one sample, term by term."""
    W, U, V, b = model.W, model.U, model.V, model.b
    if model.output == "scalar":
        slope = V + sum(x[i] * W[i] for i in range(N))
        return slope * y + b + sum(x[i] * U[i] for i in range(N))
    result = b.clone().expand(b.shape)
    for i in range(N):
        result = result + x[i] * U[i]
    if model.output == "vector":
        slopes = [V[j] + sum(x[i] * W[i, j] for i in range(N)) for j in range(M)]
        return result + torch.stack(slopes) * y
    for j in range(M):
        result = result + y[j] * V[j]
        for i in range(N):
            result = result + x[i] * y[j] * W[i, j]
    return result


@every_output
def test_the_result_is_the_sum_of_all_terms(double, output):
    model, x, y = make(output), torch.randn(5, N), torch.randn(5, M)
    expected = [one_sample(model, *row) for row in zip(x, y, strict=True)]
    assert_close(model([x, y]), torch.stack(expected))


@every_output
def test_further_leading_dimensions_are_kept(double, output):
    model, x, y = make(output), torch.randn(2, 5, N), torch.randn(2, 5, M)
    fused = model([x, y])
    for row, column in itertools.product(range(2), range(5)):
        assert_close(fused[row, column], one_sample(model, x[row, column], y[row, column]))


@every_output
def test_parameters_are_drawn_in_the_order_w_u_v_b(output):
    shapes = {
        "matrix3D": [(N, M, 5, 2), (N, 5, 2), (M, 5, 2), (5, 2)],
        "matrix": [(N, M, 6), (N, 6), (M, 6), (6,)],
        "vector": [(N, M), (N, M), (M,), (M,)],
        "scalar": [(N,), (N,), (1,), (1,)],
    }[output]
    torch.manual_seed(1)
    model = make(output)
    assert list(model.state_dict()) == ["W", "U", "V", "b"]
    torch.manual_seed(1)
    for parameter, shape in zip(model.parameters(), shapes, strict=True):
        std = 1.0
        if len(shape) > 1:
            fan_out, fan_in, *field = shape  # as a convolution's weights, whatever they are
            std = (2 / ((fan_in + fan_out) * torch.Size(field).numel())) ** 0.5
        assert_close(parameter.detach(), std * torch.randn(shape))


def test_flatten_clip_and_flip_change_the_inputs():
    x, y = 3 * torch.randn(5, N, 1), 3 * torch.randn(5, 2, 2)
    flat = x.reshape(5, N), y.reshape(5, M)
    model = make("matrix")
    expected = model(flat)
    model.flatten = True
    assert_close(model([x, y]), expected)
    model.flip = True
    assert_close(model([y, x]), expected)
    model.clip = (-0.5, 1.0)
    low, high = torch.tensor(-0.5), torch.tensor(1.0)
    clamped = [torch.minimum(torch.maximum(z, low), high) for z in flat]
    assert_close(model([y, x]), make_like(model)(clamped))


def make_like(model):
    """The same parameters without any option."""
    plain = make(model.output)
    plain.load_state_dict(model.state_dict())
    return plain


def test_one_modality_is_returned_as_it_is():
    x = torch.randn(5, N)
    assert make("matrix")([x]) is x


@pytest.mark.parametrize(
    "twin",
    [
        lambda model: model,
        copy.deepcopy,
        lambda model: copy.deepcopy(copy.deepcopy(model)),
        lambda model: pickle.loads(pickle.dumps(model)),
        lambda model: copy.deepcopy(model).float(),
    ],
    ids=["itself", "copy", "copy of a copy", "unpickled", "cast"],
)
@every_output
def test_gradients_of_parameters_are_clipped_in_copies_too(output, twin):
    model = make(output, grad_clip=(-0.1, 0.2)).double()
    x, y = 5 * torch.randn(5, N), 5 * torch.randn(5, M)
    plain, model = make_like(model), twin(model)
    dtype = model.W.dtype
    cotangent = torch.randn(plain([x, y]).shape)
    for module in (plain.to(dtype), model):
        result = module([x.to(dtype), y.to(dtype)])
        result.backward(cotangent.to(dtype))
    for clipped, free in zip(model.parameters(), plain.parameters(), strict=True):
        assert_close(clipped.grad, free.grad.clamp(-0.1, 0.2))
    assert max(parameter.grad.abs().max() for parameter in plain.parameters()) > 0.2


def test_a_module_of_multibenchs_has_no_clipping_to_restore():
    model = make("matrix")
    theirs = {name: value for name, value in vars(model).items() if name != "grad_clip"}
    ours = MultiplicativeInteractions2Modal.__new__(MultiplicativeInteractions2Modal)
    ours.__setstate__(theirs)
    x, y = torch.randn(5, N), torch.randn(5, M)
    torch.testing.assert_close(ours([x, y]), model([x, y]), rtol=0, atol=0)


@every_output
def test_gradients(output):
    model = make(output).double()
    x = torch.randn(2, N, dtype=torch.float64, requires_grad=True)
    y = torch.randn(2, M, dtype=torch.float64, requires_grad=True)

    def call(x, y, *parameters):
        given = dict(zip("WUVb", parameters, strict=True))
        return torch.func.functional_call(model, given, ([x, y],))

    assert call(x, y, *model.parameters()).dtype == torch.float64
    assert gradcheck(call, (x, y, *model.parameters()))


def test_the_scalar_form_needs_the_first_width_only(double):
    model = MultiplicativeInteractions2Modal([N], None, "scalar")
    x, y = torch.randn(5, N), torch.randn(5, 7)
    slope, offset = x @ model.W + model.V, x @ model.U + model.b
    assert_close(model([x, y]), slope[:, None] * y + offset[:, None])


def test_what_cannot_be_constructed_is_refused():
    with pytest.raises(ValueError, match="unknown output 'tensor'; choose from .*matrix3D"):
        MultiplicativeInteractions2Modal([N, M], 5, "tensor")
    with pytest.raises(ValueError, match=r"input_dims must be \[n, m\] for output='vector'"):
        MultiplicativeInteractions2Modal([N], 5, "vector")
    with pytest.raises(ValueError, match=r"must be \[p, q\] for output='matrix3D', got 5"):
        MultiplicativeInteractions2Modal([N, M], 5, "matrix3D")
    with pytest.raises(ValueError, match=r"an integer for output='matrix', got \[5, 2\]"):
        MultiplicativeInteractions2Modal([N, M], [5, 2], "matrix")
    with pytest.raises(ValueError, match="widths of 3 modalities"):
        MultiplicativeInteractions3Modal([N, M], 5)


def test_other_modalities_are_refused():
    model, x, y = make("matrix"), torch.randn(5, N), torch.randn(5, M)
    with pytest.raises(ValueError, match="takes 2 modalities .*, got 3"):
        model([x, y, y])
    for pair in ([y, x], [x, y[:1]], [x[:, None], y]):
        with pytest.raises(ValueError, match=r"x, \(batch, 3\), and y, \(batch, 4\), got"):
            model(pair)


@pytest.mark.parametrize("task", [None, "affect"])
def test_three_modalities_are_a_map_of_the_third(double, task):
    model = MultiplicativeInteractions3Modal([N, M, 2], 5, task)
    x, y, z = torch.randn(6, N), torch.randn(6, M), torch.randn(6, 2)
    fused = model([x, y, z])
    assert fused.shape == (6, 5)
    for row in range(6):
        maps = one_sample(model.a, x[row], y[row])
        shift = one_sample(model.b, x[row], y[row])
        assert_close(fused[row], z[row] @ maps + shift)


def test_three_modalities_draw_the_map_then_the_shift():
    torch.manual_seed(1)
    model = MultiplicativeInteractions3Modal([N, M, 2], 5)
    assert set(model.state_dict()) == {f"{part}.{name}" for part in "ab" for name in "WUVb"}
    torch.manual_seed(1)
    expected = [
        parameter
        for shape, output in [([2, 5], "matrix3D"), (5, "matrix")]
        for parameter in MultiplicativeInteractions2Modal([N, M], shape, output).parameters()
    ]
    torch.testing.assert_close([*model.parameters()], expected, rtol=0, atol=0)


def test_three_modalities_have_the_right_gradient_and_can_be_copied():
    model = MultiplicativeInteractions3Modal([N, M, 2], 2).double()
    inputs = [torch.randn(2, w, dtype=torch.float64, requires_grad=True) for w in (N, M, 2)]
    names, parameters = zip(*model.named_parameters(), strict=True)

    def call(*tensors):
        given = dict(zip(names, tensors[3:], strict=True))
        return torch.func.functional_call(model, given, (list(tensors[:3]),))

    assert gradcheck(call, (*inputs, *parameters))
    for twin in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        torch.testing.assert_close(twin(inputs), model(inputs), rtol=0, atol=0)


def test_three_modalities_refuse_others():
    model = MultiplicativeInteractions3Modal([N, M, 2], 5)
    x, y = torch.randn(6, N), torch.randn(6, M)
    with pytest.raises(ValueError, match="takes 3 modalities, got 2"):
        model([x, y])
    with pytest.raises(ValueError, match=r"third modality must have shape \(6, 2\), got \(6, 3\)"):
        model([x, y, x])
