"""A state_dict tells the constants of its map, and is loaded into no other, unless asked to."""

from collections import OrderedDict

import pytest
import torch
from torch import nn

from deq_fusion.fusions.deq import DEQFusion
from deq_fusion.training_structures.checkpoint import load_checkpoint, save_checkpoint
from unit_tests.fusions.deq_reference import arguments

WIDTHS, DIM = (5, 7), 16


def build(**options):
    return DEQFusion(WIDTHS, DIM, **arguments(**options))


OTHERS = {  # pairs of options whose parameters have the same names and shapes
    "start": ({}, {"start": 0.5}, "is of a DEQFusion of start=0.1, and this one has start=0.5;"),
    "as torch starts": ({"start": "released"}, {"start": 1}, "start='released'.* has start=1.0;"),
    "groups": ({}, {"groups": 2}, "groups=4, fuse_groups=4, .* has groups=2, fuse_groups=2;"),
    "groups of f_fuse": ({}, {"fuse_groups": 1}, "of fuse_groups=4, .* has fuse_groups=1;"),
    "injection": ({}, {"injection": "raw"}, "injection='scale_free', .* has injection='raw';"),
    "residual": ({"residual": True}, {}, "of residual=True, .* has residual=False;"),
    "order": ({"norm_order": "norm_relu"}, {}, "norm_order='norm_relu', .*='relu_norm';"),
}
others = pytest.mark.parametrize(("theirs", "ours", "message"), OTHERS.values(), ids=OTHERS)


@others
@pytest.mark.parametrize("inside", [False, True])
def test_another_map_is_refused(theirs, ours, message, inside):
    saved, own = build(**theirs), build(**ours)
    if inside:
        saved, own = (nn.ModuleDict({"fuse": nn.Sequential(x)}) for x in (saved, own))
    with pytest.raises(RuntimeError, match=f"must be of the same map, but {'.*' + message}"):
        own.load_state_dict(saved.state_dict())


def assert_loaded(own, saved):
    own.load_state_dict(saved)
    for name, value in own.state_dict().items():
        torch.testing.assert_close(value, saved[name], rtol=0, atol=0)


@others
def test_who_asks_for_the_numbers_alone_gets_them(theirs, ours, message):
    saved = build(**theirs).state_dict()
    with pytest.raises(RuntimeError, match=r"or load dict\(state_dict\), which tells none"):
        build(**ours).load_state_dict(saved, strict=False)  # as of other shapes
    assert_loaded(build(**ours), dict(saved))  # which has lost its metadata
    for metadata in saved._metadata.values():
        metadata.pop("map", None)
    assert isinstance(saved, OrderedDict)
    assert_loaded(build(**ours), saved)  # as those of before there were any


@pytest.mark.parametrize(
    "options",
    [
        {"start": 0.1},
        {"groups": 4, "fuse_groups": 4},
        {"unroll": 3},
        {"joint": True},
        {"dropout": 0.5, "solver": "picard", "tol": 1e-6, "jacobian_weight": 2.0},
        {"unroll": 2, "unroll_injection": "states"},
    ],
    ids=str,
)
def test_the_same_map_is_loaded_however_it_is_solved(options):
    assert_loaded(build(**options), build().state_dict())
    assert_loaded(build(), build(**options).state_dict())


@pytest.mark.parametrize("missing", [{"f_theta": False}, {"f_fuse": False}, {"gate": False}])
def test_ablations_tell_what_they_have(missing):
    assert_loaded(build(**missing), build(**missing).state_dict())
    with pytest.raises(RuntimeError, match="start=0.1, and this one has start=0.3;"):
        build(**missing, start=0.3).load_state_dict(build(**missing).state_dict())


def test_files_keep_the_constants(tmp_path):
    saved = nn.Sequential(build(start=0.3)).state_dict()
    torch.save(saved, tmp_path / "torch.pt")
    save_checkpoint(tmp_path / "ours.pt", {"weights": saved})
    read = torch.load(tmp_path / "torch.pt", weights_only=True)
    for state in (read, load_checkpoint(tmp_path / "ours.pt")["weights"]):
        assert_loaded(nn.Sequential(build(start=0.3)), state)
        with pytest.raises(RuntimeError, match="start=0.3, and this one has start=0.1;"):
            nn.Sequential(build()).load_state_dict(state)


def test_steps_have_no_penalty_whatever_its_weight():
    fusion = build(unroll=2, jacobian_weight=5.0)
    fused = fusion([torch.randn(3, width) for width in WIDTHS])
    assert fused.requires_grad and fusion.training and fusion.auxiliary_loss.item() == 0
