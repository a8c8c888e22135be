"""The groups of the norms, and how the recurrent terms start."""

import math

import numpy as np
import pytest
import torch

from deq_fusion.fusions.deq import DEQFusion, Equations

INF, NAN = float("inf"), float("nan")


@pytest.mark.parametrize(
    ("dim", "groups"),
    [(2, 1), (3, 1), (4, 1), (7, 1), (8, 2), (9, 1), (10, 2), (12, 3), (14, 2), (15, 3), (16, 4)]
    + [(17, 1), (20, 4), (50, 2), (60, 4), (510, 3), (512, 4)],
)
def test_groups_follow_the_width(dim, groups):
    fusion = DEQFusion([5], dim)
    assert fusion.unimodal.groups == fusion.fuse.groups == groups
    assert dim % groups == 0 and (groups == 1 or dim // groups >= 4)
    fitting = [k for k in range(1, 5) if dim % k == 0 and dim // k >= 4]
    assert groups == max(fitting, default=1)


@pytest.mark.parametrize("dim", [2, 3, 4, 8])
def test_few_channels_are_fused_without_a_warning(dim):
    fused = DEQFusion([5, 7], dim, on_failure="ignore")([torch.randn(4, 5), torch.randn(4, 7)])
    assert fused.shape == (4, dim) and fused.std(0).min() > 0


@pytest.mark.parametrize(
    ("dim", "groups", "channels"), [(6, 2, 3), (6, 3, 2), (8, 4, 2), (16, 8, 2)]
)
@pytest.mark.parametrize("name", ["groups", "fuse_groups"])
def test_few_channels_that_are_asked_for_are_warned_of(dim, groups, channels, name):
    message = f"{name}={groups} leaves {channels} of dim={dim} channels to a group"
    with pytest.warns(UserWarning, match=message) as warned:
        fusion = DEQFusion([5], dim, **{name: groups})
    assert len(warned) == 1 and warned[0].filename == __file__
    assert fusion.fuse.groups == groups
    default = DEQFusion([5], dim).unimodal.groups
    assert fusion.unimodal.groups == (groups if name == "groups" else default)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"groups": 16}, r"groups \(=16\) must leave at least 2 channels of dim \(=16\) to a gr"),
        ({"groups": 16}, r"choose groups from \[1, 2, 4, 8\], or another dim"),
        ({"fuse_groups": 16}, r"fuse_groups \(=16\) must leave at least 2 channels"),
        ({"dim": 1}, "dim must be at least 2, got 1: of one channel GroupNorm makes zero"),
        ({"dim": 1, "groups": 1}, "dim must be at least 2, got 1"),
        ({"dim": 3, "groups": 3}, r"choose groups from \[1\], or another dim"),
    ],
    ids=str,
)
def test_groups_of_one_channel_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        DEQFusion(**{"input_dims": [5], "dim": 16, **options})


def test_one_group_is_asked_for_without_a_warning():
    assert DEQFusion([5], 3, groups=1).fuse.groups == 1
    preset = DEQFusion.from_preset("released_mosi", [5], 16)
    assert (preset.unimodal.groups, preset.fuse.groups) == (4, 1)


@pytest.mark.parametrize(
    "value", ["x", None, True, -1e-9, INF, NAN, [1.0], 1j, b"released", "Released"], ids=str
)
def test_a_start_that_makes_no_sense_is_refused(value):
    with pytest.raises(ValueError, match="^start must be ") as raised:
        DEQFusion([5], 16, start=value)
    assert len(str(raised.value)) < 200


def started(start, equations="paper", n=2):
    torch.manual_seed(1)
    return DEQFusion([64] * n, 64, equations=equations, start=start)


@pytest.mark.parametrize("value", [0.1, np.float32(0.1), np.float64(0.1)])
def test_contractive_is_a_tenth(value):
    features = [torch.randn(4, 64) for _ in range(2)]
    torch.testing.assert_close(started("contractive")(features), started(value)(features))


@pytest.mark.parametrize("scale", [0.05, 0.3])
@pytest.mark.parametrize("n", [1, 4])
def test_the_recurrent_terms_start_as_the_fraction_asked_for(scale, n):
    dim = 256
    fusion = DEQFusion([dim] * n, dim, start=scale)
    two_layer, fuse = fusion.unimodal.tensors(), fusion.fuse.tensors()
    z = torch.nn.functional.group_norm(torch.randn(512, dim), 4)
    h = torch.nn.functional.group_norm(z @ two_layer[0][0], 4).relu()
    assert (h @ two_layer[2][0]).std().item() == pytest.approx(scale, rel=0.1)
    states = torch.randn(n, 512, dim)
    s = z * torch.nn.functional.linear(z + states, fuse[0]).sum(0)
    # half of it, because s is quadratic in z
    assert (s @ fuse[2].T).std().item() == pytest.approx(scale / 2, rel=0.2)
    one_layer = DEQFusion([dim], dim, equations=Equations(cell="one_layer"), start=scale)
    assert (z @ one_layer.unimodal.tensors()[0][0]).std().item() == pytest.approx(scale, rel=0.1)


PARTS = [{}, {"gate": False}, {"f_theta": False}, {"f_fuse": False}, {"cell": "one_layer"}]


@pytest.mark.parametrize("changes", PARTS, ids=str)
def test_the_released_start_is_that_of_linear_maps(changes):
    fusion = started("released", Equations.like("paper", **changes))
    bound = 1 / math.sqrt(64)
    drawn = [p for name, p in fusion.named_parameters() if "norm" not in name and name != "weights"]
    cells = [cell for cell in (fusion.unimodal, fusion.fuse) if cell is not None]
    assert len(drawn) == 4 * ("f_theta" not in changes) + (
        0 if "f_fuse" in changes else 2 if "gate" in changes else 4
    )
    for parameter in drawn:
        assert float(parameter.detach().abs().max()) <= bound
        assert float(parameter.detach().std()) == pytest.approx(bound / math.sqrt(3), rel=0.3)
    # no constant makes the recurrent terms smaller than these weights make them
    for tensor in (t for cell in cells for t in cell.tensors() if t is not None):
        assert any(tensor.equal(p) for cell in cells for p in cell.parameters())


def test_the_released_start_draws_what_is_drawn_anyway_first():
    """So that what a seed gives does not depend on it."""
    first, other = (started(start, "scale_free") for start in ("contractive", "released"))
    for a, b in zip(first.projections, other.projections, strict=True):
        torch.testing.assert_close(a.weight, b.weight, rtol=0, atol=0)
