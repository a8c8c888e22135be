"""DEQFusion keeps the rules of a fusion inside a MultiBench checkout.

`MMDL` and `train` stand in for MultiBench's, from a description of those. One test a rule.
"""

import ast
import copy
import inspect
import io
import pickle
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

import fusions
from fusions.deq import DEQFusion

FUSIONS = Path(fusions.__file__).parent
FILES = [Path("deq.py"), *(p.relative_to(FUSIONS) for p in FUSIONS.glob("equilibrium/**/*.py"))]
DIM = 64


class MMDL(nn.Module):
    def __init__(self, encoders, fusion, head, has_padding=False):
        super().__init__()
        self.encoders, self.fuse, self.head = nn.ModuleList(encoders), fusion, head
        self.has_padding, self.reps, self.fuseout = has_padding, [], None

    def forward(self, inputs):
        padded = self.has_padding
        pairs = list(zip(*inputs, strict=True)) if padded else inputs
        outs = [encoder(x) for encoder, x in zip(self.encoders, pairs, strict=True)]
        self.reps = outs
        lengths = padded and not isinstance(outs[0], torch.Tensor)
        fused = self.fuse([out[0] for out in outs] if lengths else outs)
        self.fuseout = fused
        if type(fused) is tuple:
            fused = fused[0]
        return self.head([fused, inputs[1][0]] if lengths else fused)


def train(encoders, fusion, head, batches, epochs, *, objective=None, is_packed=False):
    """Trains, validates on the same batches and saves the whole model; returns the accuracy."""
    model = MMDL(encoders, fusion, head, has_padding=is_packed)
    optimizer = torch.optim.RMSprop([p for p in model.parameters() if p.requires_grad], lr=0.001)
    args = {}

    def run(batch, training):
        inputs = batch[:2] if is_packed else [x.float() for x in batch[:-1]]
        out, truth = model(inputs), batch[-1]
        args.update(reps=model.reps, fused=model.fuseout, inputs=inputs, training=training)
        if training:
            args["model"] = model
        if objective is None:
            return nn.functional.cross_entropy(out, truth), out
        return objective(out, truth, args), out

    for _ in range(epochs):
        model.train()
        for batch in batches:
            optimizer.zero_grad()
            run(batch, True)[0].backward()
            nn.utils.clip_grad_norm_(model.parameters(), 8)
            optimizer.step()
        model.eval()
        with torch.no_grad():
            hits = [(run(b, False)[1].argmax(1) == b[-1]).float().mean() for b in batches]
        torch.save(model, io.BytesIO())
    return float(sum(hits) / len(hits))


def make_batches(count=4, batch=32):
    x, y = torch.randn(count, batch, 10), torch.randn(count, batch, 6)
    return [[a, b, (a[:, 0] + b[:, 0] > 0).long()] for a, b in zip(x, y, strict=True)]


def parts(**options):
    encoders = [nn.Linear(10, 20), nn.Linear(6, 12)]
    return encoders, DEQFusion([20, 12], DIM, **options), nn.Linear(DIM, 2)


def test_it_learns_in_the_loop():
    encoders, fusion, head = parts()
    assert train(encoders, fusion, head, make_batches(), 8) > 0.85


def imported(source: str) -> list[str]:
    """The modules that a source imports from outside its own package."""
    nodes = list(ast.walk(ast.parse(source)))
    names = [alias.name for n in nodes if isinstance(n, ast.Import) for alias in n.names]
    return names + [n.module for n in nodes if isinstance(n, ast.ImportFrom) and not n.level]


def test_a1_the_files_import_torch_and_the_standard_library_only():
    for file in FILES:
        for name in imported((FUSIONS / file).read_text()):
            assert name.split(".")[0] in {"torch", *sys.stdlib_module_names}, (file, name)


@pytest.mark.slow
def test_a1_the_files_alone_work(tmp_path):
    package = tmp_path / "fusions"
    for file in FILES:
        (package / file).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(FUSIONS / file, package / file)
    (package / "__init__.py").touch()
    code = (
        "import torch, fusions\nfrom fusions.deq import DEQFusion\ntorch.manual_seed(0)\n"
        "fused = DEQFusion([5, 7], 16)([torch.randn(2, 5), torch.randn(2, 7)])\n"
        "fused.backward(torch.randn_like(fused))\nprint(fusions.__file__)"
    )
    command = [sys.executable, "-W", "error", "-c", code]
    run = subprocess.run(
        command, cwd=tmp_path, env={"PYTHONPATH": str(tmp_path)}, capture_output=True, text=True
    )
    assert run.returncode == 0, run.stderr
    assert run.stdout.strip() == str(package / "__init__.py")


def test_a2_forward_takes_one_list_and_leaves_it_alone():
    _, features, *others = inspect.signature(DEQFusion.forward).parameters.values()
    assert features.default is features.empty and all(p.kind is p.KEYWORD_ONLY for p in others)
    features = [torch.randn(3, 5), torch.randn(3, 7), torch.randn(3, 9)]
    given = list(features)
    DEQFusion([5, 7, 9], DIM)(given)
    assert len(given) == 3 and all(a is b for a, b in zip(given, features, strict=True))
    assert DEQFusion([5, 7], DIM)(given[:2]).shape == (3, DIM)


def test_a3_the_result_is_a_plain_tensor():
    fused = DEQFusion([5, 7], DIM)([torch.randn(3, 5), torch.randn(3, 7)])
    assert type(fused) is torch.Tensor and fused.shape == (3, DIM)


def test_a4_every_parameter_exists_before_the_first_batch_and_is_trained():
    encoders, fusion, head = parts(jacobian_weight=0.1, dropout=0.1)
    assert not any(nn.parameter.is_lazy(p) for p in fusion.parameters())
    before = {name: p.detach().clone() for name, p in fusion.named_parameters()}
    train(encoders, fusion, head, make_batches(2), 1)
    after = dict(fusion.named_parameters())
    assert after.keys() == before.keys()
    assert [name for name, p in after.items() if p.equal(before[name])] == []


def test_a5_the_model_pickles_after_validation_and_copies_at_any_time():
    encoders, fusion, head = parts(jacobian_weight=0.1, jacobian_every=2)
    batches = make_batches(2)
    train(encoders, fusion, head, batches, 2)
    model = MMDL(encoders, fusion, head).eval()
    expected = model(batches[0][:-1])
    with torch.no_grad():
        model(batches[0][:-1])  # what the model holds on to has no graph now
    torch.testing.assert_close(
        pickle.loads(pickle.dumps(model))(batches[0][:-1]), expected, rtol=0, atol=0
    )

    features = [torch.randn(3, 20), torch.randn(3, 12)]
    for module in (fusion.train(), fusion.eval()):
        for _ in range(2):
            fused = module(features)
            assert copy.deepcopy(module).state_dict().keys() == module.state_dict().keys()
        fused.backward(torch.randn_like(fused))
        torch.testing.assert_close(
            copy.deepcopy(module)(features), module(features), rtol=0, atol=0
        )


def test_a6_device_and_dtype_are_those_of_the_features():
    for file in FILES:
        source = (FUSIONS / file).read_text()
        assert "cuda" not in source and '"cpu"' not in source and "torch.device(" not in source
    before = torch.get_default_dtype()
    for dtype, default in ((torch.float64, torch.float32), (torch.float32, torch.float64)):
        fusion = DEQFusion([5, 7], DIM, dropout=0.1, jacobian_weight=1.0).to(dtype)
        features = [torch.randn(3, 5, dtype=dtype), torch.randn(3, 7, dtype=dtype)]
        cotangent = torch.randn(3, DIM, dtype=dtype)
        torch.set_default_dtype(default)
        try:
            with torch.device("meta"):  # a tensor made without a device would land here
                fused = fusion(features)
                ((fused * cotangent).sum() + fusion.auxiliary_loss).backward()
        finally:
            torch.set_default_dtype(before)
        assert fused.dtype == fusion.auxiliary_loss.dtype == dtype and fused.device.type == "cpu"


@pytest.mark.parametrize("training", [True, False])
def test_a7_it_works_with_and_without_gradients_and_refuses_second_derivatives(training):
    fusion = DEQFusion([5, 7], DIM, jacobian_weight=1.0).train(training)
    features = [torch.randn(3, 5, requires_grad=True), torch.randn(3, 7, requires_grad=True)]
    fused = fusion(features)
    with torch.no_grad():
        assert fusion(features).equal(fused) and fusion.auxiliary_loss == 0
    grads = torch.autograd.grad(fused, features, torch.randn_like(fused), create_graph=True)
    with pytest.raises(RuntimeError, match="second derivatives, differentiate through unrolled"):
        torch.autograd.grad(sum(g.square().sum() for g in grads), features)


def test_a8_nothing_is_printed(capfd):
    encoders, fusion, head = parts(jacobian_weight=0.1)
    train(encoders, fusion, head, make_batches(2), 1)
    assert capfd.readouterr() == ("", "")


def test_a9_an_objective_of_three_arguments_adds_the_penalty():
    seen = {True: [], False: []}

    def objective(pred, truth, args):
        penalty = args["model"].fuse.auxiliary_loss
        seen[args["training"]].append(float(penalty.detach()))
        return nn.functional.cross_entropy(pred, truth) + penalty

    encoders, fusion, head = parts()
    batches, squares = make_batches(), []
    for weight in (0.0, 1.0):
        penalised = DEQFusion([20, 12], DIM, jacobian_weight=weight)
        penalised.load_state_dict(fusion.state_dict())
        modules = copy.deepcopy([*encoders, penalised, head])
        train(modules[:2], modules[2], modules[3], batches, 4, objective=objective)
        probe = DEQFusion([20, 12], DIM, jacobian_weight=1.0, jacobian_probes=50)
        probe.load_state_dict(modules[2].state_dict())
        probe([encoder(x) for encoder, x in zip(modules[:2], batches[0], strict=False)])
        squares.append(float(probe.auxiliary_loss.detach()))
    assert seen[True][:16] == [0.0] * 16 and min(seen[True][16:]) > 0
    assert set(seen[False]) == {0.0}
    assert squares[1] < 0.8 * squares[0]  # the penalty makes the Jacobian smaller


class PackedEncoder(nn.Linear):
    """Returns the padded features and their lengths, as MultiBench's recurrent encoders do."""

    def forward(self, inputs):
        padded, lengths = inputs
        return [super().forward(padded), lengths]


class LastStep(nn.Linear):
    def forward(self, inputs):
        fused, lengths = inputs
        return super().forward(fused[torch.arange(len(fused)), lengths - 1])


def test_a10_padded_sequences_of_packed_batches_are_fused_step_by_step():
    encoders = [PackedEncoder(10, 20), PackedEncoder(6, 12)]
    fusion, head = DEQFusion([20, 12], DIM), LastStep(DIM, 2)
    features, lengths = [torch.randn(8, 5, 10), torch.randn(8, 5, 6)], torch.randint(1, 6, (8,))
    batch = (features, [lengths, lengths], torch.arange(8), torch.randint(0, 2, (8,)))
    train(encoders, fusion, head, [batch], 2, is_packed=True)
    assert fusion.info.steps.shape == (8, 5, 3)

    model = MMDL(encoders, fusion, head, has_padding=True)
    model(batch[:2])
    step = fusion([e((x[:, 2], None))[0] for e, x in zip(encoders, features, strict=True)])
    torch.testing.assert_close(model.fuseout[:, 2], step, rtol=1e-4, atol=1e-4)
