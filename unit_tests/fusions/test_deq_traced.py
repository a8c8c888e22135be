"""Tools that trace: torch.compile leaves the solve alone, torch.export wants fixed steps."""

import copy
import warnings

import pytest
import torch
from torch import Tensor

from deq_fusion.fusions.deq import DEQFusion
from deq_fusion.fusions.equilibrium import find_fixed_point
from unit_tests.fusions.deq_host import WIDTHS, Host

SIZES = (4, 6, 9, 3)
MESSAGE = "torch.export, torch.onnx and torch.jit.trace cannot follow; .* unroll=k of DEQFusion"
close = torch.testing.assert_close
# torch says so of itself
pytestmark = [
    pytest.mark.filterwarnings("ignore:.torch.jit.*deprec:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:.*LeafSpec:FutureWarning"),
    pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf"),
]


def inputs(batch: int) -> tuple[Tensor, Tensor]:
    return torch.randn(batch, 4), torch.randn(batch, 7)


def counters():
    from torch._dynamo.utils import counters  # takes a second

    return counters


def compiled(host: Host, backend: str = "aot_eager", **options):
    torch._dynamo.reset()
    counters().clear()
    return torch.compile(host, backend=backend, **options)


def step(host: Host, run, batch: int, seed: int) -> list[Tensor]:
    """Result, penalty and gradients of one training step."""
    torch.manual_seed(seed)
    result = run(*inputs(batch))
    penalty = host.fusion.auxiliary_loss
    loss = (result * torch.randn_like(result)).sum() + penalty
    return [result.detach(), penalty.detach(), *torch.autograd.grad(loss, list(host.parameters()))]


@pytest.mark.slow
@pytest.mark.parametrize(
    "options", [{}, {"jacobian_weight": 1.0, "dropout": 0.3, "joint": True}], ids=str
)
def test_a_compiled_model_is_the_eager_one(options):
    host = Host(**options)
    run = compiled(host)
    for i in range(10):
        batch = SIZES[i % len(SIZES)]
        close(step(host, run, batch, i), step(host, host, batch, i))
        if i == 2:
            graphs = counters()["stats"]["unique_graphs"]
    host.eval()
    for batch in SIZES:
        x = inputs(batch)
        close(run(*x), host(*x))
        with torch.no_grad():
            close(run(*x), host(*x))
    # before the solve and after it: of one batch size and of any, and both without gradients
    assert graphs <= 4 and counters()["stats"]["unique_graphs"] <= 8
    assert not counters()["recompile_limit"] and host.fusion.info is not None


@pytest.mark.slow
def test_a_penalty_read_in_a_compiled_step_is_the_eager_one():
    host = Host(jacobian_weight=1.0)

    def loss(x: Tensor, y: Tensor) -> Tensor:
        return host(x, y).square().sum() + host.fusion.auxiliary_loss

    torch._dynamo.reset()
    run, parameters = torch.compile(loss, backend="eager"), list(host.parameters())
    for i, batch in enumerate(SIZES):
        x, found = inputs(batch), []
        for f in (run, loss):
            torch.manual_seed(i)
            found.append([value := f(*x), *torch.autograd.grad(value, parameters)])
        close(*found)


@pytest.mark.slow
def test_steps_compile_whole():
    host = Host(unroll=1)
    run = compiled(host, backend="eager", fullgraph=True)
    for i, batch in enumerate((*SIZES, *SIZES)):
        close(step(host, run, batch, i), step(host, host, batch, i), rtol=1e-4, atol=1e-5)
    assert counters()["stats"]["unique_graphs"] <= 2  # of one batch size, and of any


@pytest.mark.slow
def test_a_bare_solve_is_left_alone():
    start, a = torch.randn(3, 4), torch.tensor(0.5)

    def solved(start: Tensor) -> Tensor:
        return find_fixed_point(lambda z: a * z.cos(), start).value * 2

    torch._dynamo.reset()
    counters().clear()
    run = torch.compile(solved, backend="eager")
    for batch in (3, 2, 3, 2):
        torch.testing.assert_close(run(start[:batch]), solved(start[:batch]), rtol=0, atol=0)
    assert counters()["stats"]["unique_graphs"] <= 4


@pytest.mark.parametrize("strict", [False, True])
@pytest.mark.parametrize("options", [{}, {"equations": "paper"}, {"joint": True}], ids=str)
def test_an_equilibrium_is_not_exported(options, strict):
    # older torch does not tell that it exports, and fails at the solve in its own words
    told = not strict or hasattr(torch.compiler, "is_exporting")
    with pytest.raises(Exception, match=MESSAGE if told else "skip function disable"):
        torch.export.export(Host(**options).eval(), inputs(4), strict=strict)


def export(host: Host) -> torch.export.ExportedProgram:
    batch = torch.export.Dim("batch")
    shapes = {"x": {0: batch}, "y": {0: batch}}
    return torch.export.export(host, inputs(4), dynamic_shapes=shapes, strict=False)


@pytest.mark.slow
@pytest.mark.parametrize("equations", ["scale_free", "released_mosi"])
def test_steps_are_exported_for_any_batch(equations):
    host = Host(unroll=2, equations=equations).eval()
    module = export(host).module()
    for batch in SIZES:
        x = inputs(batch)
        close(module(*x), host(*x))


def test_steps_are_exported_with_absent_modalities():
    fusion = DEQFusion(WIDTHS, 16, unroll=2).eval()
    batch = torch.export.Dim("batch")
    present = torch.tensor([[True, True], [False, True], [True, False]])
    x = [torch.randn(3, width) for width in WIDTHS]
    shapes = {"features": [{0: batch}] * 2, "present": {0: batch}}
    program = torch.export.export(
        fusion, (x,), {"present": present}, dynamic_shapes=shapes, strict=False
    )
    x, present = [z.repeat(3, 1) for z in x], present.repeat(3, 1)
    close(program.module()(x, present=present), fusion(x, present=present))


@pytest.mark.slow
@pytest.mark.parametrize("graded", [True, False])
def test_steps_in_onnx(tmp_path, graded):
    pytest.importorskip("onnxscript")
    reference = pytest.importorskip("onnx.reference")
    host, path = Host(unroll=2).eval(), tmp_path / "host.onnx"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what other packages say
        with torch.set_grad_enabled(graded):
            program = export(host)
        torch.onnx.export(program, dynamo=True, verbose=False).save(path)
        run = reference.ReferenceEvaluator(str(path))
    for batch in SIZES:
        x = inputs(batch)
        fed = {name: value.numpy() for name, value in zip(run.input_names, x, strict=True)}
        close(torch.tensor(run.run(None, fed)[0]), host(*x), rtol=1e-4, atol=1e-5)


def test_jit_traces_steps_and_no_equilibrium():
    x = inputs(4)
    with pytest.raises(RuntimeError, match=MESSAGE):
        torch.jit.trace(Host().eval(), x)
    host = Host(unroll=2).eval()
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore", torch.jit.TracerWarning)  # of checks of shapes
        traced = torch.jit.trace(host, x)
    for batch in SIZES:
        x = inputs(batch)
        close(traced(*x), host(*x))


@pytest.mark.slow
def test_a_copy_of_what_was_compiled_is_eager():
    host = Host()
    compiled(host)(*inputs(4))
    x = inputs(3)
    torch.testing.assert_close(copy.deepcopy(host)(*x), host(*x), rtol=0, atol=0)
