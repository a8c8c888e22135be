"""Equations are one frozen value, checked once; DEQFusion follows it."""

import pickle
from dataclasses import FrozenInstanceError, fields, replace

import pytest
import torch
from torch import nn

from deq_fusion.fusions.deq import EQUATIONS, DEQFusion, Equations

NAN = float("nan")
FLAGS = ("residual", "gate", "f_theta", "f_fuse", "fuse_weights", "fuse_bias")
TEXTS = ("injection", "cell", "norm_order", "unroll_injection")
SENSELESS = [
    *((name, value) for name in FLAGS for value in ("no", "False", 0, 1, NAN, None, [])),
    *((name, value) for name in TEXTS for value in ("x", None, 1, NAN, True, [], {"raw": 1})),
]
OTHER = {  # field -> a value that is not the default
    "injection": "raw",
    "cell": "one_layer",
    "residual": True,
    "norm_order": "norm_relu",
    "gate": False,
    "f_theta": False,
    "f_fuse": False,
    "fuse_weights": False,
    "fuse_bias": True,
    "unroll_injection": "states",
}
PAPER = {"injection": "raw"}
RELEASED = PAPER | {"residual": True, "fuse_bias": True}
NAMED = {
    "scale_free": {},
    "paper": PAPER,
    "released": RELEASED,
    "released_brca": PAPER | {"residual": True, "fuse_weights": False},
    "released_imdb": RELEASED | {"norm_order": "norm_relu"},
    "released_mosi": PAPER | {"cell": "one_layer", "fuse_bias": True},
}


def test_every_field_is_tried_here():
    assert [*OTHER] == [field.name for field in fields(Equations)]
    assert sorted(OTHER) == sorted(FLAGS + TEXTS)


@pytest.mark.parametrize(("name", "value"), SENSELESS, ids=str)
def test_a_field_refuses_what_makes_no_sense(name, value):
    with pytest.raises(ValueError, match=rf"(must|unknown) .*|{name}") as raised:
        Equations(**{name: value})
    assert name in str(raised.value) and len(str(raised.value)) < 300


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"injection": "none"}, r"unknown injection 'none'; choose from \['raw', 'scale_free'\]"),
        ({"cell": "three_layer"}, "unknown cell 'three_layer'; choose from"),
        ({"cell": "x" * 10**7}, r"unknown cell '.{70,79}…"),
        ({"norm_order": "norm"}, "unknown norm_order 'norm'; choose from"),
        ({"unroll_injection": "x"}, "unknown unroll_injection 'x'; choose from"),
        ({"residual": True, "cell": "one_layer"}, "residual=True must go with cell='two_layer'"),
        ({"f_theta": False, "f_fuse": False}, "f_theta and f_fuse must not both be False"),
    ],
    ids=lambda x: str(x)[:60],
)
def test_fields_that_do_not_fit_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        Equations(**options)


def test_an_unknown_field_is_an_error():
    with pytest.raises(TypeError, match="gates"):
        Equations(gates=False)
    with pytest.raises(TypeError, match="gates"):
        Equations.like("paper", gates=False)


@pytest.mark.parametrize("name", NAMED)
def test_the_named_are_what_their_fields_say(name):
    equations = EQUATIONS[name]
    assert equations == Equations(**NAMED[name]) == Equations.like(name)
    assert equations.name == name and len(set(EQUATIONS.values())) == len(EQUATIONS) == len(NAMED)
    fusion = DEQFusion([8, 5], 8, equations=name)
    assert fusion.equations == DEQFusion([8, 5], 8, equations=equations).equations == equations


def test_they_vary_by_name_or_by_value():
    varied = Equations.like("paper", gate=False)
    assert varied == Equations(injection="raw", gate=False) == Equations.like(varied)
    assert varied == replace(EQUATIONS["paper"], gate=False) and varied.name is None
    assert Equations.like(varied, gate=True).name == "paper"
    with pytest.raises(ValueError, match=r"residual=True must go with cell='two_layer'"):
        Equations.like("released", cell="one_layer")


@pytest.mark.parametrize("value", ["brca", None, 3, {"gate": False}, ["paper"], Equations])
def test_a_name_that_there_is_not_is_refused(value):
    for make in (Equations.like, lambda x: DEQFusion([5], 16, equations=x)):
        with pytest.raises(ValueError, match=r"unknown equations .*; choose from \['paper', 'rel"):
            make(value)


def test_they_are_frozen_hashable_picklable_and_shown_by_what_differs():
    equations = Equations.like("paper", gate=False)
    with pytest.raises(FrozenInstanceError):
        equations.gate = True
    assert pickle.loads(pickle.dumps(equations)) == equations
    assert {equations: 1}[Equations(injection="raw", gate=False)] == 1
    assert repr(equations) == "Equations(injection='raw', gate=False)"
    assert repr(Equations()) == "Equations()"
    for name, value in OTHER.items():
        assert eval(repr(Equations(**{name: value}))) == Equations(**{name: value})


def made(**options):
    torch.manual_seed(0)
    return DEQFusion([8, 8], 8, unroll=2, **options)


@pytest.mark.parametrize("name", OTHER)
def test_every_field_changes_what_is_fused(name):
    fusion = made(equations=Equations(**{name: OTHER[name]}))
    whole = made(equations=Equations(fuse_bias=True) if name == "fuse_bias" else "scale_free")
    there = dict(fusion.named_parameters())
    if name == "fuse_bias":
        with torch.no_grad():
            fusion.bias.fill_(0.5)
    elif name == "fuse_weights":
        with torch.no_grad():
            whole.weights.copy_(torch.tensor([0.5, 2.0]))
    with torch.no_grad():
        for key, parameter in whole.named_parameters():
            if key in there and there[key].shape == parameter.shape and key not in "bias weights":
                there[key].copy_(parameter)
    features = [torch.randn(4, 8), torch.randn(4, 8)]
    assert (fusion(features) - whole(features)).norm() > 1e-3


def test_old_states_load():
    """The names and shapes of a state from before there was `Equations`."""
    n, d = 2, 8
    state = {
        "weights": torch.randn(n),
        "bias": torch.randn(()),
        "projections.0.weight": torch.randn(d, 5),
        "unimodal.weight1": torch.randn(n, d, d),
        "unimodal.bias1": torch.randn(n, 1, d),
        "unimodal.weight2": torch.randn(n, d, d),
        "unimodal.bias2": torch.randn(n, 1, d),
        "unimodal.norm_weight": torch.randn(3, n, 1, d),
        "unimodal.norm_bias": torch.randn(3, n, 1, d),
        "fuse.gate_weight": torch.randn(d, d),
        "fuse.gate_bias": torch.randn(d),
        "fuse.weight": torch.randn(d, d),
        "fuse.bias": torch.randn(d),
        "fuse.norm_weight": torch.randn(d),
        "fuse.norm_bias": torch.randn(d),
        "training_forwards": torch.tensor(3),
    }
    fusion = DEQFusion.from_preset("released", [5, d], d, jacobian_every=2)
    assert isinstance(fusion.projections[1], nn.Identity)
    # optimisers know parameters by their order
    assert [*dict(fusion.named_parameters()), "training_forwards"] == [*state]
    fusion.load_state_dict(state)
    for name, value in fusion.state_dict().items():
        torch.testing.assert_close(value, state[name], rtol=0, atol=0)
