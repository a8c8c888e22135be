"""Decoders of a robot's fused state: how the image moves, where the hand goes, whether it touches.

With MultiBench's names, arguments (the misspelt one too) and states.
"""

import torch
from torch import Tensor, nn

from .layers import conv2d, crop_like, deconv, predict_flow
from .models_utils import init_weights


class OpticalFlowDecoder(nn.Module):
    """The optical flow of the next image and its mask, refined over four sizes as in FlowNet.

    From the tiled feature of state and action (batch, z_dim, 2, 2) and the maps of an
    `ImageEncoder` to a flow (batch, 2, 32, 32), times the sigmoid of its mask's logits, and those
    logits (batch, 1, 32, 32). The coarsest maps are twice as large as the encoder's; of them the
    top left corner is taken, as MultiBench does.

    Args:
        z_dim: width of the latent.
        initailize_weights: draw the kernels by `init_weights`, and not as torch does.
    """

    def __init__(self, z_dim: int, initailize_weights: bool = True) -> None:
        super().__init__()
        self.optical_flow_conv = conv2d(2 * z_dim, 64, kernel_size=1)
        for size, channels, out in (6, 64, 64), (5, 64, 32), (4, 162, 32), (3, 98, 32), (2, 98, 32):
            setattr(self, f"img_deconv{size}", deconv(channels, out))
        for size, channels in (6, 64), (5, 162), (4, 98), (3, 98), (2, 66):
            setattr(self, f"predict_optical_flow{size}", predict_flow(channels))
        for size in 6, 5, 4, 3:
            up = nn.ConvTranspose2d(2, 2, kernel_size=4, stride=2, padding=1, bias=False)
            setattr(self, f"upsampled_optical_flow{size}_to_{size - 1}", up)
        self.predict_optical_flow2_mask = nn.Conv2d(66, 1, kernel_size=3, padding=1, bias=False)
        if initailize_weights:
            init_weights(self.modules())

    def forward(
        self, tiled_feat: Tensor, img_out_convs: tuple[Tensor, ...]
    ) -> tuple[Tensor, Tensor]:
        features = self.optical_flow_conv(torch.cat([img_out_convs[5], tiled_feat], 1))
        features = self._layer("img_deconv6")(features)
        flow = self._layer("predict_optical_flow6")(features)
        for size in 5, 4, 3, 2:
            like = img_out_convs[size - 1]
            larger = crop_like(self._layer(f"img_deconv{size}")(features), like)
            upsample = self._layer(f"upsampled_optical_flow{size + 1}_to_{size}")
            features = torch.cat([like, larger, crop_like(upsample(flow), like)], 1)
            flow = self._layer(f"predict_optical_flow{size}")(features)
        mask = self.predict_optical_flow2_mask(features)
        return flow * torch.sigmoid(mask), mask

    def _layer(self, name: str) -> nn.Module:
        return getattr(self, name)


class EeDeltaDecoder(nn.Module):
    """Four layers from the feature of state and action (batch, z_dim) to how the hand moves.

    Args:
        z_dim: width of the feature.
        action_dim: width of the result.
        initailize_weights: not used: there are no convolutions to draw anew.
    """

    def __init__(self, z_dim: int, action_dim: int, initailize_weights: bool = True) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for width, out in (z_dim, 128), (128, 64), (64, 32):
            layers += [nn.Linear(width, out), nn.LeakyReLU(0.1, inplace=True)]
        self.ee_delta_decoder = nn.Sequential(*layers, nn.Linear(32, action_dim))

    def forward(self, mm_act_feat: Tensor) -> Tensor:
        return self.ee_delta_decoder(mm_act_feat)


class ContactDecoder(nn.Module):
    """A linear layer from all that `SensorFusionSelfSupervised` returns to (batch, head) logits.

    It uses the second item, the feature of state and action.

    Args:
        z_dim: width of that feature.
        deterministic: whether four items come, and not eight.
        head: number of logits.
    """

    def __init__(self, z_dim: int, deterministic: bool, head: int = 1) -> None:
        super().__init__()
        self.deterministic = deterministic
        self.contact_fc = nn.Sequential(nn.Linear(z_dim, head))

    def forward(self, input: tuple) -> Tensor:
        items = 4 if self.deterministic else 8
        if isinstance(input, Tensor) or len(input) != items:
            came = "a tensor" if isinstance(input, Tensor) else f"{len(input)} items"
            raise ValueError(
                f"ContactDecoder takes the {items} items that SensorFusionSelfSupervised returns "
                f"with deterministic={self.deterministic}, got {came}; "
                "an MMDL hands its head the first item alone: join fusion and decoder in one module"
            )
        return self.contact_fc(input[1])
