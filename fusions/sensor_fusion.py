"""Fusions of a robot's sensors: image, force, proprioception and depth, and its next action.

The variational fusion of Lee et al., "Making Sense of Vision and Touch" (2019), as MultiBench has
it: its names, arguments and states.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

HIDDEN = 128  # width of the hidden layers
ACTION = 32  # width of an encoded action


class SensorFusion(nn.Module):
    """A product of Gaussian experts, one a sensor, joined with an encoded action.

    Each sensor's feature of width 2 z_dim is a mean and, through softplus, a variance. With a
    standard normal prior as a fifth expert their product is the belief, of which one sample is the
    latent z. If `deterministic`, z is two linear layers of the concatenated features instead.

    Args:
        device: not used, as MultiBench's callers give it: everything stays where the features are.
        z_dim: width of the latent.
        action_dim: not used, for the action comes encoded.
        encoder: return the latent alone, whatever the action.
        deterministic: two layers in place of the product of experts.

    Attributes:
        z_prior: mean and variance of the prior, (1, z_dim) each; not trained.
    """

    def __init__(
        self,
        device: torch.device | str | None,
        z_dim: int = 128,
        action_dim: int = 4,
        encoder: bool = False,
        deterministic: bool = False,
    ) -> None:
        super().__init__()
        self.z_dim = z_dim
        self.encoder_bool = encoder
        self.device = device
        self.deterministic = deterministic
        self.z_prior_m = nn.Parameter(torch.zeros(1, z_dim), requires_grad=False)
        self.z_prior_v = nn.Parameter(torch.ones(1, z_dim), requires_grad=False)
        self.st_fusion_fc1 = _layer(ACTION + z_dim, HIDDEN)
        self.st_fusion_fc2 = _layer(HIDDEN, z_dim)
        if deterministic:
            self.fusion_fc1 = _layer(4 * 2 * z_dim, HIDDEN)
            self.fusion_fc2 = _layer(HIDDEN, z_dim)

    @property
    def z_prior(self) -> tuple[Tensor, Tensor]:
        """Mean and variance of the prior."""
        return self.z_prior_m, self.z_prior_v

    def forward_encoder(
        self,
        img_encoded: tuple[Tensor, Any],
        frc_encoded: Tensor,
        proprio_encoded: Tensor,
        depth_encoded: tuple[Tensor, Any],
        action_encoded: Tensor | None,
    ) -> tuple:
        """Fuses the sensors, and with an action joins it.

        Args:
            img_encoded: feature (batch, 2 z_dim, 1), and the maps of every convolution.
            frc_encoded: feature (batch, 2 z_dim, 1).
            proprio_encoded: feature (batch, 2 z_dim, 1).
            depth_encoded: feature (batch, 2 z_dim, 1), and the maps of every convolution.
            action_encoded: (batch, 32); None for the latent alone.

        Returns:
            With an action (maps of the image, feature of state and action, z), and unless
            `deterministic` mean and variance of the belief and of the prior after them. Without,
            or of an encoder, (maps of the image, the four features, z), the maps only unless
            `deterministic`.
        """
        image, maps = img_encoded
        features = [image, frc_encoded, proprio_encoded, depth_encoded[0]]
        if self.deterministic:
            z = self.fusion_fc2(self.fusion_fc1(torch.cat(features, 1).flatten(1)))
            gaussians = []
        else:
            mean, variance = self._belief(features)
            z = sample_gaussian(mean, variance, self.device)
            gaussians = [mean, variance, *self.z_prior]
        if self.encoder_bool or action_encoded is None:
            return (*features, z) if self.deterministic else (maps, *features, z)
        joined = self.st_fusion_fc2(self.st_fusion_fc1(torch.cat([z, action_encoded], 1)))
        return (maps, joined, z, *gaussians)

    def _belief(self, features: list[Tensor]) -> tuple[Tensor, Tensor]:
        """Returns mean and variance of the product of the sensors and the prior."""
        prior = [duplicate(p, len(features[0])).unsqueeze(2) for p in self.z_prior]
        experts = [*(gaussian_parameters(feature, dim=1) for feature in features), prior]
        means, variances = (torch.cat(each, dim=2) for each in zip(*experts, strict=True))
        return product_of_experts(means, variances)

    def weight_parameters(self) -> list[nn.Parameter]:
        """Returns the parameters with "weight" in their names."""
        return [p for name, p in self.named_parameters() if "weight" in name]

    def bias_parameters(self) -> list[nn.Parameter]:
        """Returns the parameters with "bias" in their names."""
        return [p for name, p in self.named_parameters() if "bias" in name]


class SensorFusionSelfSupervised(SensorFusion):
    """`SensorFusion` as a module: [image, force, proprioception, depth, action], all encoded.

    Returns (z, feature of state and action, that feature over 2 x 2 positions, maps of the image),
    and unless `deterministic` mean and variance of the belief and of the prior after them, which
    a `ContactDecoder` takes as they are. Without an action, or of an encoder, it returns what
    `forward_encoder` does: MultiBench there calls a layer that no module has.

    Args:
        device: not used.
        z_dim: width of the latent.
        encoder: return what `forward_encoder` does.
        deterministic: two layers in place of the product of experts; MultiBench loses it on the
            way to `SensorFusion`.
    """

    def __init__(
        self,
        device: torch.device | str | None,
        z_dim: int = 128,
        encoder: bool = False,
        deterministic: bool = False,
    ) -> None:
        super().__init__(device, z_dim, encoder=encoder, deterministic=deterministic)

    def forward(self, input: list) -> tuple:
        encoded = self.forward_encoder(*input)
        if self.encoder_bool or input[4] is None:
            return encoded
        maps, joined, z, *rest = encoded
        tiled = joined[:, :, None, None].expand(-1, -1, 2, 2)
        return z, joined, tiled, maps, *rest


class roboticsConcat(nn.Module):  # MultiBench's name
    """Encoded sensors side by side, (batch, sum of their widths).

    Dimensions of size one are dropped from features, the batch's and the width's excepted.

    Args:
        name: which sensors come. None: (image, maps), force, proprioception, (depth, maps) and
            action. "noconcat": the same, returned as a list. "image": (image, maps), (depth, maps)
            and action. "simple": one sensor and action.
    """

    def __init__(self, name: str | None = None) -> None:
        super().__init__()
        if name not in (None, "noconcat", "image", "simple"):
            raise ValueError(f"name must be None, 'noconcat', 'image' or 'simple', got {name!r}")
        self.name = name

    def forward(self, x: list) -> Tensor | list[Tensor]:
        if self.name == "image":
            features = [_flat(x[0][0]), _flat(x[1][0]), x[2]]
        elif self.name == "simple":
            features = [_flat(x[0]), x[1]]
        else:
            features = [_flat(x[0][0]), _flat(x[1]), _flat(x[2]), _flat(x[3][0]), x[4]]
        return features if self.name == "noconcat" else torch.cat(features, 1)


def sample_gaussian(m: Tensor, v: Tensor, device: torch.device | str | None) -> Tensor:
    """Returns a sample of the normal distribution with mean m and variance v, differentiably.

    Args:
        m: mean, of any shape.
        v: variance, of the same.
        device: not used: the sample is drawn where the mean is.
    """
    return m + torch.sqrt(v) * torch.randn_like(m)


def gaussian_parameters(h: Tensor, dim: int = -1) -> tuple[Tensor, Tensor]:
    """Returns mean and variance, the halves of `h` along `dim`, the second through softplus."""
    mean, raw = torch.split(h, h.size(dim) // 2, dim=dim)
    return mean, F.softplus(raw) + 1e-8


def product_of_experts(m_vect: Tensor, v_vect: Tensor) -> tuple[Tensor, Tensor]:
    """Returns mean and variance of the product of Gaussians, whose precisions add up.

    Args:
        m_vect: means (batch, width, experts).
        v_vect: variances of the same shape.
    """
    precision = 1 / v_vect
    variance = 1 / precision.sum(2)
    return (m_vect * precision).sum(2) * variance, variance


def duplicate(x: Tensor, rep: int) -> Tensor:
    """Returns `x` `rep` times along its first dimension."""
    return x.repeat(rep, *[1] * (x.dim() - 1))


def depth_deconv(in_planes: int, out_planes: int) -> nn.Sequential:
    """Returns two convolutions and a transposed one, (batch, channels, h, w) -> (..., 2h, 2w)."""
    return nn.Sequential(
        nn.Conv2d(in_planes, 16, kernel_size=3, padding=1),
        nn.LeakyReLU(0.1, inplace=True),
        nn.Conv2d(16, 16, kernel_size=3, padding=1),
        nn.LeakyReLU(0.1, inplace=True),
        nn.ConvTranspose2d(16, out_planes, kernel_size=4, stride=2, padding=1),
        nn.LeakyReLU(0.1, inplace=True),
    )


def _layer(width: int, out: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(width, out), nn.LeakyReLU(0.1, inplace=True))


def _flat(x: Tensor) -> Tensor:
    """Drops dimensions of size one, but never the batch's: a single sample keeps it."""
    return x.squeeze(tuple(range(2, x.dim())))
