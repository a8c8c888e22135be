"""With its default settings DEQFusion starts where every sample converges fast."""

import pytest
import torch

from deq_fusion.fusions.deq import DEQFusion

EACH = 4  # samples of each kind, of every sign and scale


def kinds(width: int) -> dict[str, torch.Tensor]:
    """Features of all kinds that encoders give, (EACH, width) each."""
    normal = torch.randn(EACH, width)
    sparse = normal.relu() * (torch.rand(EACH, width) < 0.1)
    sparse[:, 0] = 1.0  # no sample may be zero
    basic = {
        "relu": normal.relu(),
        "minus relu": -normal.relu(),
        "sparse": sparse,
        "minus sparse": -sparse,
        "normal": normal,
        "offset": normal + 10,
    }
    scaled = {
        f"{name}, times {factor:g}": factor * x
        for name, x in basic.items()
        for factor in (1e-3, 1.0, 1e3)
    }
    for name in ("relu", "normal"):
        # drawn for every sample and every modality on its own
        spread = 10 ** torch.empty(EACH, 1).uniform_(-3, 3)
        scaled[f"{name}, any scale and sign"] = basic[name] * spread * torch.randn(EACH, 1).sign()
    return scaled


@pytest.mark.parametrize(("n", "dim"), [(5, 64), (2, 300), (3, 512), (2, 1024)])
def test_every_sample_converges_within_ten_steps(n, dim):
    fusion = DEQFusion([dim, dim // 2, 100, 2 * dim, dim][:n], dim)
    features = [kinds(width) for width in fusion.input_dims]
    names = [name for name in features[0] for _ in range(EACH)]
    stacked = [torch.cat(list(x.values())) for x in features]
    # the same kinds in another pairing of modalities
    stacked = [x.roll(EACH * i * (i % 2), 0).requires_grad_() for i, x in enumerate(stacked)]
    fused = fusion(stacked)
    fused.backward(torch.randn_like(fused))
    for direction in ("forward", "backward"):
        for block, stats in getattr(fusion.info, direction).items():
            assert stats.residual.max() <= 1e-3
            slow = [(name, int(k)) for name, k in zip(names, stats.steps, strict=True) if k > 10]
            assert stats.converged.all() and not slow, (direction, block, slow)
