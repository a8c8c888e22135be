"""Every registered fusion, as a comparison builds it."""

import copy
import inspect
import pickle
import string
from itertools import product

import pytest
import torch

from deq_fusion.fusions import adapters
from deq_fusion.fusions.deq import Equations
from deq_fusion.fusions.registry import CLASSES_ONLY, FUSIONS

DIM, BATCH, TIME, CLASSES = 8, 4, 3, 3
WIDTHS = [3, 4, 5, 6]
EQUAL = {"early_transformer"}  # it stacks its modalities, so their widths are one
SOLVED = {"tol": 1e-13, "max_steps": 200}  # as far as float64 goes
GRADCHECK = {  # -> options, with small ones where the size allows no differences
    "deq": SOLVED,
    "deq_paper": SOLVED,
    "meq": SOLVED,
    "interactions3": {"reduce": 3},
    "mutan": {"hidden": 5, "rank": 2},
    "mult": {"embed_dim": 4, "num_heads": 2},
}
APPROXIMATE = {"deq_one_step", "deq_neumann", "pdf"}  # not the gradient, and meant so
ANY_WIDTH = {"late_transformer"}  # to it a modality is a series of numbers
every = pytest.mark.parametrize("name", FUSIONS)


def counts(entry):
    """The least number of modalities, and a larger one that is allowed."""
    least, most = entry.modalities
    return sorted({least, most or max(least + 1, len(WIDTHS))})


def make(name, count=None, **options):
    """The fusion, its declared width, and the widths of its modalities."""
    entry = FUSIONS[name]
    widths = WIDTHS[: count or counts(entry)[-1]]
    if name in EQUAL:
        widths = [WIDTHS[0]] * len(widths)
    if entry.predicts:
        task = entry.tasks[0]
        options |= {"task": task, "outputs": 1 if task == "regression" else CLASSES}
    fusion, width = entry(widths, DIM, **options)
    return fusion, width, widths


def features_of(name, widths, *, kind=None, **options):
    steps = (TIME,) if (kind or FUSIONS[name].features[0]) == "sequences" else ()
    return [torch.randn(BATCH, *steps, width, **options) for width in widths]


@every
def test_the_declared_width_comes_out(name):
    entry = FUSIONS[name]
    for count, kind in product(counts(entry), entry.features):
        fusion, width, widths = make(name, count)
        out = fusion(features_of(name, widths, kind=kind))
        columns = 1 if entry.tasks == ("regression",) else CLASSES
        assert (width is None) == entry.predicts
        assert out.shape == (BATCH, columns if width is None else width)
        assert out.dtype == torch.float32


@every
def test_every_parameter_is_there_from_the_start_and_learns(name):
    fusion, _, widths = make(name)
    before = dict(fusion.named_parameters())
    fusion.double()  # so that a gradient of zero is one, not one of 1e-9
    features = features_of(name, widths, dtype=torch.float64, requires_grad=True)
    out = fusion(features)
    loss = (out * torch.randn_like(out)).sum()
    if hasattr(fusion, "supervised_loss"):  # some parameters learn by it alone
        loss = loss + fusion.supervised_loss(torch.arange(BATCH) % CLASSES)
    loss.backward()
    after = dict(fusion.named_parameters())
    assert before.keys() == after.keys() and all(after[n] is p for n, p in before.items())
    assert [n for n, p in after.items() if p.grad is None or not p.grad.any()] == []
    assert all(x.grad.any() for x in features)


@pytest.mark.parametrize("name", [name for name in FUSIONS if name not in APPROXIMATE])
def test_the_gradient_is_that_of_the_formula(double, name):
    fusion, _, widths = make(name, max(2, FUSIONS[name].modalities[0]), **GRADCHECK.get(name, {}))
    fusion.eval()
    features = features_of(name, widths, requires_grad=True)
    cotangent = torch.randn_like(fusion(features))

    def projected(*xs):
        return (fusion(list(xs)) * cotangent).sum()

    assert torch.autograd.gradcheck(projected, features, fast_mode=True)


@every
def test_evaluation_repeats_itself_and_follows_the_dtype(name):
    fusion, _, widths = make(name)
    fusion.double().eval()
    features = features_of(name, widths, dtype=torch.float64)
    with torch.no_grad():
        fused = fusion(features)
        assert fused.dtype == torch.float64 and torch.equal(fused, fusion(features))
    torch.testing.assert_close(fusion(features), fused)


@every
def test_a_trained_fusion_is_saved_copied_and_loaded(name):
    fusion, _, widths = make(name)
    features = features_of(name, widths)
    fusion([x.requires_grad_() for x in features])  # moves buffers, keeps tensors of a graph
    twins = [copy.deepcopy(fusion), pickle.loads(pickle.dumps(fusion)), make(name)[0]]
    twins[-1].load_state_dict(fusion.state_dict())
    expected = fusion.eval()(features)
    for twin in twins:
        torch.testing.assert_close(twin.eval()(features), expected, rtol=0, atol=0)


@every
def test_every_fusion_may_be_told_what_is_absent(name):
    fusion, _, widths = make(name)
    fusion.eval()
    features, odd = (
        features_of(name, widths),
        [torch.full_like(x, torch.nan) for x in features_of(name, widths)],
    )
    present = torch.ones(BATCH, len(widths), dtype=torch.bool)
    torch.testing.assert_close(fusion(features, present=present), fusion(features))
    present[1, 0] = present[2, -1] = False
    held = [
        torch.where(h.view(-1, *[1] * (x.dim() - 1)), x, y)
        for h, x, y in zip(present.T, features, odd, strict=True)
    ]
    told = fusion(held, present=present)
    torch.testing.assert_close(told[[0, 3]], fusion(features)[[0, 3]])
    assert told.isfinite().all() and not torch.allclose(told[1], fusion(features)[1])
    if "present" not in inspect.signature(fusion.forward).parameters:
        zeros = [
            torch.where(h.view(-1, *[1] * (x.dim() - 1)), x, 0)
            for h, x in zip(present.T, features, strict=True)
        ]
        torch.testing.assert_close(told, fusion(zeros))
    with pytest.raises(ValueError, match="at least one modality present"):
        fusion(features, present=torch.zeros_like(present))


@every
def test_modalities_that_do_not_fit_are_refused(name):
    fusion, _, widths = make(name, max(2, FUSIONS[name].modalities[0]))
    fusion.eval()
    features = features_of(name, widths)
    clear = r"features must be a list of|modalities must (be \(batch, time|have the widths)"
    for wrong in (features[:-1], [*features, features[0]], []):
        with pytest.raises(ValueError, match=clear):
            fusion(wrong)
    if name not in ANY_WIDTH:
        clear = r"must have shape \(batch|modalities must (be \(batch, time|have the widths)"
        for wrong in ([w + 1 for w in widths], [*widths[:-1], widths[-1] + 1]):
            with pytest.raises(ValueError, match=clear):
                fusion(features_of(name, wrong))


@pytest.mark.parametrize(
    ("name", "widths", "options", "message"),
    [
        ("film", WIDTHS[:3], {}, "must list 2 widths, one"),
        ("interactions3", WIDTHS[:2], {}, "must list 3 widths, one"),
        ("tensor", WIDTHS[:1], {}, "must list 2 or more widths, one"),
        ("deq", [], {}, "must list 1 or more widths, one"),
        ("nl_gate", WIDTHS[:2], {"positions": 3}, r"dim \(=8\) must be divisible by positions"),
        ("early_transformer", [4, 4], {"outputs": 2, "task": "regression"}, "one number, got"),
        ("early_transformer", [4, 5], {"outputs": 1, "task": "regression"}, "must have one width"),
        ("early_transformer", [4], {"outputs": 1, "task": "regression", "dep": 1}, "dep"),
        ("mult", WIDTHS[:2], {"layer": 2}, "no hyperparameter 'layer'"),
        ("deq", WIDTHS, {"drop": 0.5}, "drop"),
        ("deq", WIDTHS, {"gate": False}, r"pass equations=Equations\(gate=False\)"),
        ("deq_paper", WIDTHS, {"gate": False}, r"equations=Equations.like\('paper', gate=False\)"),
        ("deq", WIDTHS, {"equations.gat": False}, "gat"),
        ("deq", WIDTHS, {"equations.gate": 3}, "gate must be True or False, got 3"),
        ("late", WIDTHS, {"outputs": 1, "task": "classification"}, "at least 2 outputs"),
    ],
)
def test_what_cannot_be_built_is_refused(name, widths, options, message):
    with pytest.raises((TypeError, ValueError), match=message):
        FUSIONS[name](widths, DIM, **options)


@every
def test_every_value_of_the_search_builds_another_fusion_of_the_same_kind(name):
    for option, values in FUSIONS[name].search.items():
        assert len(set(values)) == len(values) > 1
        for value in values:
            fusion, width, widths = make(name, **{option: value})
            out = fusion(features_of(name, widths))
            assert width is None or out.shape == (BATCH, width)


@pytest.mark.parametrize("name", [name for name, entry in FUSIONS.items() if entry.reduce])
@pytest.mark.parametrize("reduce", ["its own", 4])
def test_features_are_projected_first_and_the_maps_are_counted(name, reduce):
    entry = FUSIONS[name]
    own = reduce == "its own"
    fusion, width, widths = make(name, **({} if own else {"reduce": reduce}))
    k, n = entry.reduce if own else reduce, len(widths)
    inside = {
        "tensor": 0,
        "interactions3": (k + 1) ** 2 * (k + 1) * DIM,  # an affine map in each of the three
    }[name]
    assert sum(p.numel() for p in fusion.parameters()) == sum(widths) * k + inside
    assert width == ((k + 1) ** n if name == "tensor" else DIM)
    features = features_of(name, widths)
    maps = [fusion.projections[i].weight for i in range(n)]
    projected = [torch.einsum("bd,kd->bk", x, w) for x, w in zip(features, maps, strict=True)]
    ones = [torch.cat([torch.ones(BATCH, 1), x], 1) for x in projected]
    if name == "tensor":
        letters = string.ascii_lowercase[:n]
        terms = ",".join(f"z{letter}" for letter in letters)
        expected = torch.einsum(f"{terms}->z{letters}", *ones).flatten(1)
    else:
        plain, plain_width = entry([k] * n, DIM, reduce=None)
        plain.load_state_dict(fusion.fusion.state_dict())
        assert not isinstance(plain, adapters.Reduced) and plain_width == DIM
        expected = plain(projected)
    torch.testing.assert_close(fusion(features), expected)


def test_encodings_are_side_by_side_and_of_one_batch():
    fusion = adapters.Encoded([torch.nn.Linear(3, 2), torch.nn.Linear(4, 5)])
    features = [torch.randn(6, 3), torch.randn(6, 4)]
    parts = [encoder(x) for encoder, x in zip(fusion.encoders, features, strict=True)]
    torch.testing.assert_close(fusion(features), torch.cat(parts, 1))
    with pytest.raises(ValueError, match=r"features must have one batch size, got \[6, 5\]"):
        fusion([features[0], features[1][:5]])
    with pytest.raises(ValueError, match=r"modalities\[1\] must hold a number, got shape \(6, 0\)"):
        fusion([features[0], torch.empty(6, 0)])


@pytest.mark.parametrize(
    ("name", "task"),
    [(name, task) for name, e in FUSIONS.items() if e.predicts for task in e.tasks],
)
def test_fusions_that_predict_have_a_column_for_each_output(name, task):
    outputs = 1 if name == "early_transformer" else 5
    fusion, width = FUSIONS[name]([4, 4], DIM, outputs=outputs, task=task)
    out = fusion.eval()(features_of(name, [4, 4]))
    assert width is None and out.shape == (BATCH, outputs)
    if task == "classification":  # log-probabilities
        torch.testing.assert_close(out.exp().sum(1), torch.ones(BATCH))


def test_the_entries_say_what_a_comparison_needs():
    for entry in FUSIONS.values():
        least, most = entry.modalities
        assert least >= 1 and (most is None or most >= least)
        assert entry.features and set(entry.features) <= {"vectors", "sequences"}
        assert set(entry.tasks) <= {"classification", "multilabel", "regression"}
        assert entry.tasks == CLASSES_ONLY or "regression" in entry.tasks
        assert entry.summary and entry.cost
    assert len({entry.summary for entry in FUSIONS.values()}) == len(FUSIONS)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")
@every
def test_a_gpu_gives_what_the_cpu_gives(name):
    solved = name.startswith("deq") and name != "deq_unrolled"
    options = {"tol": 1e-10, "max_steps": 200} if solved or name == "meq" else {}
    if solved:  # groups of two channels would be signs, and their gradients lost in rounding
        options["groups"] = 2
    fusion, _, widths = make(name, **options)
    fusion.double().eval()
    features = [x.double() for x in features_of(name, widths)]
    cotangent = torch.randn_like(fusion(features))

    def run(device):
        fusion.to(device).zero_grad()
        inputs = [x.detach().to(device).requires_grad_() for x in features]
        with torch.backends.cudnn.flags(enabled=False):  # its GRU has no gradient in evaluation
            out = fusion(inputs)
            out.backward(cotangent.to(device))
        assert out.device.type == device
        # copies, for a gradient moves with its parameter
        grads = [x.grad for x in [*inputs, *fusion.parameters()] if x.grad is not None]
        return [out.detach().cpu(), *(grad.cpu().clone() for grad in grads)]

    for cpu, gpu in zip(run("cpu"), run("cuda"), strict=True):
        torch.testing.assert_close(gpu, cpu, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize(
    ("name", "options", "equations"),
    [
        ("deq", {}, Equations()),
        ("deq", {"equations": "paper"}, Equations(injection="raw")),
        ("deq", {"equations.gate": False}, Equations(gate=False)),
        ("deq_paper", {"equations.gate": False}, Equations(injection="raw", gate=False)),
        ("deq_paper", {"equations": "scale_free"}, Equations()),
        (
            "deq_unrolled",
            {"equations": "released", "equations.fuse_bias": False, "equations.gate": False},
            Equations.like("released", fuse_bias=False, gate=False),
        ),
    ],
    ids=str,
)
def test_equations_are_an_option_and_so_is_each_of_their_fields(name, options, equations):
    fusion, _ = FUSIONS[name](WIDTHS, DIM, **options)
    assert fusion.equations == equations
