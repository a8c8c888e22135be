"""Tests of deep equilibrium fusion, and of the objective that adds its penalty."""

import os
import sys

import pytest
import torch
from torch import nn

sys.path.append(os.getcwd())

if sys.version_info < (3, 10):  # noqa: UP036
    pytest.skip("fusions/deq.py needs Python 3.10", allow_module_level=True)

from tests.common import count_parameters, set_seeds  # noqa: E402, F401

from fusions.deq import DEQFusion  # noqa: E402
from objective_functions.auxiliary_loss import WithAuxiliaryLoss  # noqa: E402
from training_structures.Supervised_Learning import MMDL, train  # noqa: E402

DIMS = [5, 7]


def make_inputs(batch=4, dtype=torch.float32):
    """Make the features of two modalities."""
    return [torch.randn(batch, d, dtype=dtype) for d in DIMS]


def test_deq_shapes(set_seeds):  # noqa: F811
    """Test that leading dimensions are kept and that the result is a plain tensor."""
    fusion = DEQFusion(DIMS, 16)
    output = fusion(make_inputs(3))
    assert type(output) is torch.Tensor
    assert output.shape == (3, 16)
    output = fusion([torch.randn(3, 2, d) for d in DIMS])
    assert output.shape == (3, 2, 16)
    output = DEQFusion([5, 7, 9], 8)([torch.randn(1, d) for d in (5, 7, 9)])
    assert output.shape == (1, 8)


def test_deq_parameters(set_seeds):  # noqa: F811
    """Test that there are as many parameters as equations (8) to (12) have."""
    d = 16
    projections = d * sum(DIMS)
    unimodal = 2 * (2 * (d * d + d) + 3 * 2 * d)  # two linear maps and three norms each
    fuse = 2 * (d * d + d) + 2 * d + len(DIMS)  # gate, linear map, norm, and the weights of x_fuse
    assert count_parameters(DEQFusion(DIMS, d)) == projections + unimodal + fuse


def test_deq_is_the_limit_of_its_steps(set_seeds):  # noqa: F811
    """Test the equilibrium and its implicit gradient against many steps and backpropagation."""
    solved = DEQFusion(DIMS, 16, tol=1e-10, max_steps=100).double()
    unrolled = DEQFusion(DIMS, 16, unroll=100).double()
    unrolled.load_state_dict(solved.state_dict())
    inputs, cotangent = make_inputs(dtype=torch.float64), torch.randn(4, 16, dtype=torch.float64)
    results = []
    for fusion in (solved, unrolled):
        x = [i.clone().requires_grad_() for i in inputs]
        output = fusion(x)
        grads = torch.autograd.grad(output, x + list(fusion.parameters()), cotangent)
        results.append([output, *grads])
    assert solved.info.converged.all()
    for a, b in zip(*results, strict=True):
        assert torch.allclose(a, b, rtol=1e-6, atol=1e-8)


def test_deq_samples_do_not_meet(set_seeds):  # noqa: F811
    """Test that a sample is fused as it is alone."""
    fusion = DEQFusion(DIMS, 16, tol=1e-6).eval()
    inputs = make_inputs()
    output = fusion(inputs)
    for i in range(4):
        assert torch.allclose(fusion([x[i : i + 1] for x in inputs]), output[i : i + 1], atol=1e-4)


def test_deq_absent_modality(set_seeds):  # noqa: F811
    """Test that what an absent modality holds changes nothing."""
    fusion = DEQFusion(DIMS, 16)
    text, image = make_inputs()
    present = torch.tensor([[True, False]] * 4)
    output = fusion([text, image], present=present)
    assert torch.equal(fusion([text, image + 1], present=present), output)
    assert not torch.allclose(fusion([text, image]), output)


def test_auxiliary_loss(set_seeds):  # noqa: F811
    """Test that the penalty is added while training, and only then."""
    fusion = DEQFusion(DIMS, 16, jacobian_weight=1.0)
    model = MMDL([nn.Identity(), nn.Identity()], fusion, nn.Linear(16, 2))
    prediction, truth = model(make_inputs()), torch.tensor([[0], [1], [1], [0]])
    plain = nn.functional.cross_entropy(prediction, truth.squeeze(1))
    objective = WithAuxiliaryLoss(nn.CrossEntropyLoss())
    loss = objective(prediction, truth, {"training": True, "model": model})
    assert fusion.auxiliary_loss.item() > 0
    assert torch.allclose(loss, plain + fusion.auxiliary_loss)
    assert torch.equal(objective(prediction, truth, {"training": False, "model": model}), plain)


def test_deq_trains(set_seeds, tmp_path):  # noqa: F811
    """Test that train fits XOR of two modalities, and that the saved model can be loaded."""
    x1 = torch.tensor([[0.0], [0.0], [1.0], [1.0]])
    x2 = torch.tensor([[0.0], [1.0], [0.0], [1.0]])
    y = torch.tensor([[0], [1], [1], [0]])
    encoders = [nn.Sequential(nn.Linear(1, 16), nn.ReLU(), nn.Linear(16, 16)) for _ in range(2)]
    fusion, head = DEQFusion([16, 16], 32, jacobian_weight=0.1), nn.Linear(32, 2)
    before = {name: p.detach().clone() for name, p in fusion.named_parameters()}
    loader = [[x1, x2, y]] * 10
    path = str(tmp_path / "best.pt")
    train(
        encoders,
        fusion,
        head,
        loader,
        loader,
        10,
        save=path,
        objective=WithAuxiliaryLoss(nn.CrossEntropyLoss()),
        objective_args_dict={},
        track_complexity=False,
    )
    assert not any(torch.equal(p.cpu(), before[name]) for name, p in fusion.named_parameters())
    model = torch.load(path, weights_only=False).cpu().eval()
    assert torch.equal(model([x1, x2]).argmax(1), y.squeeze(1))
