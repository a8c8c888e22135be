# %% [markdown]
# # First equilibrium
#
# Two modalities, one fused feature: how the states settle, what the gate lets through, and what a
# missing modality changes. It takes a few seconds on a laptop.

# %%
import matplotlib.pyplot as plt
import torch
from torch import nn

from deq_fusion import DEQFusion
from deq_fusion.fusions.analysis import gate_shares, spectral_radii, trace

torch.manual_seed(0)

# %% [markdown]
# ## A toy with an answer
# A sound and a picture are two numbers each. The label says whether their first numbers have the
# same sign, so that neither alone knows anything.

# %%
sound, picture = torch.randn(900, 2), torch.randn(900, 2)
label = (sound[:, 0] * picture[:, 0] > 0).long()
test = slice(700, 900)

# %% [markdown]
# Each has an encoder of its own. `DEQFusion` takes the widths of their features and returns one
# feature, here of width 64. It is an `nn.Module` like any other: a head is put behind it.
# `jacobian_weight` weighs the penalty below: a set as small as this one needs much of it.

# %%
encoders = nn.ModuleList(nn.Sequential(nn.Linear(2, 32), nn.Tanh()) for _ in range(2))
fusion = DEQFusion([32, 32], dim=64, jacobian_weight=30.0)
head = nn.Linear(64, 2)


def encoded(rows):
    return [encoders[0](sound[rows]), encoders[1](picture[rows])]


fused = fusion(encoded(test))
fused.shape

# %% [markdown]
# ## Steps and residuals
# Each sample is solved on its own, until its state moves by less than a thousandth (`tol`).
# `fusion.info` says what that took: a row a sample, and a column for each of $z_1$, $z_2$ and $z$.

# %%
print("steps of the first three samples", fusion.info.steps[:3].tolist())
print("largest residual", f"{fusion.info.residual.max():.1e}")
print("all converged", bool(fusion.info.converged.all()))

# %% [markdown]
# ## Training
# The gradient is that of the equilibrium, not of the steps that led to it. `auxiliary_loss` is a
# penalty that keeps the map a contraction, so that there goes on being one equilibrium.

# %%
model = nn.ModuleList([encoders, fusion, head])
optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3, weight_decay=0.1)
for _ in range(40):
    for rows in torch.randperm(700).split(100):
        logits = head(fusion(encoded(rows)))
        loss = nn.functional.cross_entropy(logits, label[rows])
        optimizer.zero_grad()
        (loss + fusion.auxiliary_loss).backward()
        optimizer.step()

model.eval()
with torch.no_grad():
    guess = head(fusion(encoded(test))).argmax(1)
print(f"right on {(guess == label[test]).double().mean():.0%} of the samples not seen")

# %% [markdown]
# ## The way to the equilibrium
# `trace` solves once more and keeps every step. Plain iteration, which applies the map again and
# again, shows how fast the trained map contracts.

# %%
features = [x.detach() for x in encoded(test)]
steps = trace(fusion, features, joint=True, solver="picard", steps=20)["joint"]
shares = gate_shares(steps.gates)

figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.2), layout="constrained")
left.semilogy(range(1, 21), steps.residual, color="#3d8a5a", alpha=0.15)
left.set(title="Every test sample settles", xlabel="step", ylabel="residual")
left.set(ylim=(1e-8, 1), xticks=range(0, 21, 5))
right.plot(range(1, 21), shares[:, 0], color="#2f6fb3", label="sound")
right.plot(range(1, 21), shares[:, 1], color="#c8741a", label="picture")
right.set(title="What the gate lets through", xlabel="step", ylabel="share")
right.set(ylim=(0, 1), xticks=range(0, 21, 5))
right.legend(frameon=False)

# %% [markdown]
# Whether the map contracts at the equilibrium is the spectral radius of its Jacobian there: below
# 1 it does, and the smaller the faster.

# %%
for name, radius in spectral_radii(fusion, features).items():
    print(f"{name:7} mean {radius.mean():.3f}, largest {radius.max():.3f}")

# %% [markdown]
# ## A missing modality
# `present` says which modalities a sample has. What is absent takes no part: the gate of the
# other one alone decides, and what its features hold does not matter.

# %%
here = torch.tensor([[True, False]]).expand(200, 2)
with torch.no_grad():
    without = fusion([features[0], torch.full_like(features[1], 7.0)], present=here)
    again = fusion([features[0], torch.zeros_like(features[1])], present=here)
print("the same, whatever the absent picture holds:", torch.equal(without, again))
