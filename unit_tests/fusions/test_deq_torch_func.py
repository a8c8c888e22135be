"""torch.func: the steps work with all of it; a solve says what does."""

import pytest
import torch
from torch.func import functional_call, grad, hessian, jacfwd, jacrev, vmap

from deq_fusion.fusions.deq import DEQFusion
from deq_fusion.fusions.equilibrium import find_fixed_point
from unit_tests.fusions.deq_reference import arguments

# torch 2.13 says so of what its own forward mode imports
pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprec:DeprecationWarning")
MESSAGE = "torch.func .* cannot follow; use torch.autograd.grad .* unroll=k of DEQFusion"


def cases(fusion, x):
    def loss(parameters, a):
        return functional_call(fusion, parameters, ([a, x[1]],)).sum()

    return {
        "grad": lambda: grad(loss)(dict(fusion.named_parameters()), x[0]),
        "jacrev": lambda: jacrev(lambda a: fusion([a, x[1]]))(x[0]),
        "jacfwd": lambda: jacfwd(lambda a: fusion([a, x[1]]))(x[0]),
        "hessian": lambda: hessian(lambda a: fusion([a, x[1]]).sum())(x[0]),
        "vmap": lambda: vmap(lambda a, b: fusion([a[None], b[None]])[0])(*x),
        "per sample": lambda: vmap(grad(loss), (None, 0))(
            dict(fusion.named_parameters()), x[0].expand(2, *x[0].shape)
        ),
    }


NAMES = list(cases(None, (None, None)))
EVERY = [{}, {"joint": True}, {"f_theta": False}, {"injection": "raw"}, {"gradient": "one_step"}]


def features():
    return [torch.randn(4, 5), torch.randn(4, 6)]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("options", EVERY, ids=str)
def test_a_solve_names_what_is_offered(name, options):
    with pytest.raises(RuntimeError, match=MESSAGE):
        cases(DEQFusion([5, 6], 8, **arguments(**options)), features())[name]()


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("options", [{}, {"injection": "raw"}, {"unroll_injection": "states"}])
def test_the_steps_work(name, options):
    fusion, x = DEQFusion([5, 6], 8, unroll=3, **arguments(**options)), features()
    got = cases(fusion, x)[name]()
    if name == "grad":
        parameters = dict(fusion.named_parameters())
        want = torch.autograd.grad(fusion(x).sum(), list(parameters.values()))
        torch.testing.assert_close(list(got.values()), list(want))
    elif name == "vmap":
        torch.testing.assert_close(got, fusion(x))
    elif name in ("jacrev", "jacfwd"):
        want = torch.autograd.functional.jacobian(lambda a: fusion([a, x[1]]), x[0])
        torch.testing.assert_close(got, want)


def test_masks_and_sequences_work_in_vmap():
    fusion, x = DEQFusion([5, 6], 8, unroll=2), [torch.randn(4, 3, 5), torch.randn(4, 3, 6)]
    present = torch.tensor([[True, True], [False, True], [True, False]]).expand(4, 3, 2)
    got = vmap(lambda a, b, p: fusion([a, b], present=p))(*x, present)
    torch.testing.assert_close(got, fusion(x, present=present))


def test_the_jacobian_of_a_solve_is_that_of_a_row_at_a_time():
    fusion, x = DEQFusion([5, 6], 8, tol=1e-6), features()
    call = lambda a: fusion([a, x[1]])  # noqa: E731
    jacobian = torch.autograd.functional.jacobian(call, x[0])
    leaf = x[0].clone().requires_grad_()
    (row,) = torch.autograd.grad(call(leaf)[1, 2], leaf)
    torch.testing.assert_close(jacobian[1, 2], row, rtol=1e-4, atol=1e-5)
    with pytest.raises(RuntimeError, match=MESSAGE):
        torch.autograd.functional.jacobian(call, x[0], vectorize=True)
    fused = call(leaf)
    with pytest.raises(RuntimeError, match=MESSAGE):
        torch.autograd.grad(fused, leaf, torch.ones(2, *fused.shape), is_grads_batched=True)


def test_a_bare_solve_says_so_too():
    with pytest.raises(RuntimeError, match=MESSAGE):
        vmap(lambda z: find_fixed_point(torch.cos, z[None]).value)(torch.zeros(3, 1))
