"""Encoders to a Gaussian code, and decoders from a code, under MultiBench's names.

They are the parts of MVAE (Wu and Goodman, 2018) and MFM (Tsai et al., 2019). An encoder returns
(mean, log variance), (batch, latent) each, or if told so a code alone. Parameters are drawn in
MultiBench's order, and state_dicts cross in both directions.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .common_models import LeNet

Code = tuple[Tensor, Tensor] | Tensor


class MLPEncoder(nn.Module):
    """Two linear layers with a ReLU between them, (batch, indim) -> (mean, log variance).

    Args:
        indim: width of the input.
        hiddim: width of the hidden layer.
        outdim: width of the code.
    """

    def __init__(self, indim: int, hiddim: int, outdim: int) -> None:
        super().__init__()
        self.fc = nn.Linear(indim, hiddim)
        self.fc2 = nn.Linear(hiddim, 2 * outdim)
        self.outdim = outdim

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return _halves(self.fc2(F.relu(self.fc(x))), self.outdim)


class TSEncoder(nn.Module):
    """A linear map of all states of a gated recurrent unit, (batch, time, indim) -> a code.

    Args:
        indim: width of a step.
        outdim: width of the GRU's state.
        finaldim: width of the code.
        timestep: number of steps; a series may come flattened, (batch, timestep * indim).
        returnvar: return (mean, log variance) in place of a code.
        batch_first: accepted, and without effect. (With it, MultiBench's GRU runs over the
            samples of the batch as if they were steps.)
    """

    def __init__(
        self,
        indim: int,
        outdim: int,
        finaldim: int,
        timestep: int,
        returnvar: bool = True,
        batch_first: bool = False,
    ) -> None:
        super().__init__()
        self.gru = nn.GRU(indim, outdim, batch_first=batch_first)
        self.indim, self.ts, self.finaldim = indim, timestep, finaldim
        self.linear = nn.Linear(outdim * timestep, 2 * finaldim if returnvar else finaldim)
        self.returnvar = returnvar

    def forward(self, x: Tensor) -> Code:
        if x.dim() < 2 or x[0].numel() != self.ts * self.indim:
            raise ValueError(
                f"a series must have {self.ts} steps of {self.indim}, got shape {tuple(x.shape)}; "
                "cut or pad it, or construct the encoder with another timestep"
            )
        x = x.reshape(len(x), self.ts, self.indim)
        if self.gru.batch_first:
            states = self.gru(x)[0]
        else:
            states = self.gru(x.transpose(0, 1))[0].transpose(0, 1)
        code = self.linear(states.flatten(1))
        return _halves(code, self.finaldim) if self.returnvar else code


class TSDecoder(nn.Module):
    """A series made from a code, by a gated recurrent unit that reads its own states.

        h_0 = L z + l,   h_1 = GRU(0; h_0),   h_t = GRU(h_{t-1}; h_{t-1}),   y = [h_1; h_2; ...]

    Args:
        indim: width of a step.
        outdim: accepted, and not used.
        finaldim: width of the code.
        timestep: number of steps.
    """

    def __init__(self, indim: int, outdim: int, finaldim: int, timestep: int) -> None:
        super().__init__()
        self.gru = nn.GRU(indim, indim)
        self.linear = nn.Linear(finaldim, indim)
        self.ts, self.indim = timestep, indim

    def forward(self, x: Tensor) -> Tensor:
        """Maps (batch, finaldim) to the flattened series, (batch, timestep * indim)."""
        hidden = self.linear(x).unsqueeze(0)
        step, steps = torch.zeros_like(hidden), []
        for _ in range(self.ts):
            step, hidden = self.gru(step, hidden)
            steps.append(step.squeeze(0))
        return torch.cat(steps, 1)


class DeLeNet(nn.Module):
    """An image made from a code by n transposed convolutions with batch norms, and a last one.

    (batch, latent) -> (batch, in_channels, s, s) with s = 4 * 2^n + 2: 34 for n = 3, 130 for n = 5,
    a few pixels more than `LeNetEncoder` reads, see `recon.sigmloss1dcentercrop`. There is no
    nonlinearity.

    Args:
        in_channels: channels of the image.
        arg_channels: channels before the last convolution; each one before has twice as many.
        additional_layers: n.
        latent: width of the code.
    """

    def __init__(
        self, in_channels: int, arg_channels: int, additional_layers: int, latent: int
    ) -> None:
        super().__init__()
        widths = [arg_channels * 2**i for i in range(additional_layers, -1, -1)]
        self.linear = nn.Linear(latent, widths[0])
        self.deconvs = nn.ModuleList(
            nn.ConvTranspose2d(width, width // 2, kernel_size=4, stride=2, padding=1, bias=False)
            for width in widths[:-1]
        )
        self.deconvs.append(
            nn.ConvTranspose2d(
                arg_channels, in_channels, kernel_size=8, stride=4, padding=1, bias=False
            )
        )
        self.bns = nn.ModuleList(nn.BatchNorm2d(width) for width in widths[1:])

    def forward(self, x: Tensor) -> Tensor:
        x = self.linear(x)[:, :, None, None]
        *first, last = self.deconvs
        for deconv, norm in zip(first, self.bns, strict=True):
            x = norm(deconv(x))
        return last(x)


class LeNetEncoder(nn.Module):
    """A linear map of `LeNet`'s output, (batch, in_channels, height, width) -> a code.

    Args:
        in_channels: channels of the image.
        arg_channels: channels of LeNet's first block.
        additional_layers: blocks after it; they must shrink the image to one position.
        latent: width of the code.
        twooutput: return (mean, log variance) in place of a code.
    """

    def __init__(
        self,
        in_channels: int,
        arg_channels: int,
        additional_layers: int,
        latent: int,
        twooutput: bool = True,
    ) -> None:
        super().__init__()
        self.latent = latent
        self.lenet = LeNet(in_channels, arg_channels, additional_layers)
        width = arg_channels * 2**additional_layers
        self.linear = nn.Linear(width, 2 * latent if twooutput else latent)
        self.twoout = twooutput

    def forward(self, x: Tensor) -> Code:
        features = self.lenet(x)
        if features.dim() != 2:
            raise ValueError(
                f"the blocks must shrink images to one position, but leave {tuple(x.shape[2:])} "
                f"at {tuple(features.shape[2:])}; take more additional_layers, or smaller images"
            )
        code = self.linear(features)
        return _halves(code, self.latent) if self.twoout else code


def _halves(both: Tensor, width: int) -> tuple[Tensor, Tensor]:
    return both[:, :width], both[:, width:]
