"""LeNet: its blocks computed again, its shapes, gradients and files."""

import copy
import pickle

import pytest
import torch
from torch import nn
from torch.func import functional_call
from torch.testing import assert_close

from deq_fusion.unimodals.common_models import LeNet


def stirred(model):
    """The model with arbitrary statistics and scales in its normalisations, in evaluation mode."""
    for norm in model.bns:
        nn.init.normal_(norm.running_mean)
        nn.init.uniform_(norm.running_var, 0.5, 2)
        nn.init.normal_(norm.weight)
        nn.init.normal_(norm.bias)
    return model.eval()


def convolved(x, weight, padding):
    """The sum over a window and all channels, with plain loops over the window."""
    rows, columns = x.shape[2:]
    x = nn.functional.pad(x, [padding] * 4)
    out = 0
    for i in range(weight.shape[2]):
        for j in range(weight.shape[3]):
            window = x[:, :, i : i + rows, j : j + columns]
            out = out + torch.einsum("bchw,oc->bohw", window, weight[:, :, i, j])
    return out


def block(x, conv, norm, padding):
    x = convolved(x, conv.weight, padding)
    shape = (1, -1, 1, 1)
    x = (x - norm.running_mean.view(shape)) / (norm.running_var.view(shape) + norm.eps).sqrt()
    x = (x * norm.weight.view(shape) + norm.bias.view(shape)).clamp_min(0)
    rows, columns = x.shape[2] // 2 * 2, x.shape[3] // 2 * 2
    corners = [x[:, :, i:rows:2, j:columns:2] for i in (0, 1) for j in (0, 1)]
    return torch.stack(corners).amax(0)


def test_blocks_convolve_normalise_rectify_and_pool(double):
    model, x = stirred(LeNet(2, 3, 2, output_each_layer=True)), torch.randn(4, 2, 17, 12)
    *pooled, out = model(x)
    for padding, conv, norm, mean in zip((2, 1, 1), model.convs, model.bns, pooled, strict=True):
        x = block(x, conv, norm, padding)
        assert_close(mean, x.sum((2, 3)) / (x.shape[2] * x.shape[3]))
    assert out.shape == (4, 12, 2)  # 17 x 12 becomes 2 x 1
    assert_close(out, x[..., 0])


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("size, layers, width", [(28, 3, 8), (112, 5, 32)])
def test_the_shapes_of_multibenchs_examples(batch, size, layers, width):
    model = LeNet(1, 2, layers, output_each_layer=True).eval()
    *pooled, out = model(torch.randn(batch, 1, size, size))
    assert out.shape == (batch, 2 * width)
    assert [p.shape for p in pooled] == [(batch, 2 * 2**i) for i in range(layers + 1)]


def test_the_output_may_keep_its_spatial_dimensions():
    model = LeNet(1, 2, 3, squeeze_output=False).eval()
    assert model(torch.randn(1, 1, 28, 28)).shape == (1, 16, 1, 1)


def test_a_linear_layer_takes_the_flattened_output(double):
    torch.manual_seed(1)
    model = stirred(LeNet(1, 2, 1, linear=(4 * 2 * 3, 5)))
    torch.manual_seed(1)
    plain = stirred(LeNet(1, 2, 1))
    plain.load_state_dict({k: v for k, v in model.state_dict().items() if "linear" not in k})
    x = torch.randn(3, 1, 8, 12)
    flat = torch.stack([sample.reshape(-1) for sample in plain(x)])
    assert_close(model(x), flat @ model.linear.weight.T + model.linear.bias)


def test_weights_are_drawn_twice_as_in_multibench():
    torch.manual_seed(1)
    model = LeNet(2, 3, 2, linear=(12, 5))
    torch.manual_seed(1)
    parts = [nn.Conv2d(2, 3, 5, bias=False), nn.Conv2d(3, 6, 3, bias=False)]
    parts += [nn.Conv2d(6, 12, 3, bias=False), nn.Linear(12, 5)]
    for part in parts:
        nn.init.kaiming_uniform_(part.weight)
    found = [*(conv.weight for conv in model.convs), model.linear.weight]
    assert all(torch.equal(a, b.weight) for a, b in zip(found, parts, strict=True))
    torch.testing.assert_close(model.linear.bias, parts[-1].bias, rtol=0, atol=0)


def test_gradients_in_training(double):
    model, x = LeNet(1, 2, 1), torch.randn(3, 1, 8, 8, requires_grad=True)
    names, weights = zip(*model.named_parameters(), strict=True)

    def run(x, *weights):
        return functional_call(model, dict(zip(names, weights, strict=True)), (x,))

    assert torch.autograd.gradcheck(run, (x, *weights), fast_mode=True)


def test_files_and_copies():
    model, x = stirred(LeNet(1, 2, 3, linear=(16, 3))), torch.randn(2, 1, 28, 28)
    other = LeNet(1, 2, 3, linear=(16, 3)).eval()
    assert not torch.equal(other(x), model(x))
    other.load_state_dict(model.state_dict())
    for twin in (other, copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        torch.testing.assert_close(twin(x), model(x), rtol=0, atol=0)
    assert model.double()(x.double()).dtype == torch.float64
    assert {k.split(".")[0] for k in model.state_dict()} == {"convs", "bns", "linear"}
    assert LeNet.__module__ == "deq_fusion.unimodals.common_models"


def test_says_what_images_it_takes():
    for shape in ((2, 1, 15, 28), (1, 28, 28)):
        with pytest.raises(ValueError, match=r"at least 16 x 16, got \(\d+, .*enlarge them"):
            LeNet(1, 2, 3)(torch.randn(shape))
    with pytest.raises(ValueError, match="additional_layers must be at least 0, got -1"):
        LeNet(1, 2, -1)
