"""A GPU gives what the CPU gives, to the solver's tolerance."""

import pytest
import torch

from deq_fusion.fusions.deq import DEQFusion

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")


@pytest.mark.parametrize("joint", [False, True])
def test_result_and_gradients_are_those_of_the_cpu(joint):
    fusion = DEQFusion([48, 32], 64, tol=1e-6, joint=joint)
    features = [torch.randn(16, width) for width in (48, 32)]
    present = torch.rand(16, 2) > 0.3
    present[:, 0] |= ~present.any(1)
    cotangent = torch.randn(16, 64)

    def run(device):
        fusion.to(device).zero_grad()
        inputs = [x.detach().to(device).requires_grad_() for x in features]
        fused = fusion(inputs, present=present.to(device))
        fused.backward(cotangent.to(device))
        assert fused.device.type == fusion.info.steps.device.type == device
        # copies, for a gradient moves with its parameter
        gradients = [x.grad.cpu().clone() for x in [*inputs, *fusion.parameters()]]
        return [fused.detach().cpu(), *gradients]

    for cpu, gpu in zip(run("cpu"), run("cuda"), strict=True):
        torch.testing.assert_close(gpu, cpu, rtol=1e-3, atol=1e-4)
