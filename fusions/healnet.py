"""HEALNet (Hemker et al., 2024, arXiv:2311.09115) with one set of weights for all rounds."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .equilibrium import checks
from .modalities import check_widths, finite
from .tokens import as_tokens, sinusoids


class GatedFeedForward(nn.Module):
    """W_2 (a * selu(g)) of a layer-normalised input, [a; g] = W_1 x: 4 dim numbers each."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(dim)
        self.inner, self.outer = nn.Linear(dim, 8 * dim), nn.Linear(4 * dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        a, g = self.inner(self.norm(x)).chunk(2, -1)
        return self.outer(a * F.selu(g))


class HEALNet(nn.Module):
    """Fuses sequences or vectors into an array of latent vectors that reads them again and again.

    From a learnt L of `latents` rows, `rounds` times, with the same weights every time:

        for every modality i:    L <- L + A_i(L, x_i),    L <- L + F(L)
        then                     L <- L + S(L),           L <- L + G(L)

    A_i is cross-attention of several heads from L to the tokens P_i x_i of the modality (with the
    sines and cosines of their places, where they are a sequence), S self-attention of L, F and
    G gated networks; all layer-normalise what they are given. What a sample lacks is skipped. The
    result is the layer-normalised mean of the rows of L. To one token all attend alike: of a
    vector A_i is a linear map of it.

    It is the iterative rival of an equilibrium: the same weights at every step, a fixed number of
    steps, backpropagated through all. The release, whose weights are tied by an option, leaves
    the first round's out of that, has a temperature of 1/2 in the attention and a LeakyReLU
    behind it, and no P_i before the keys and values.

    Args:
        input_dims: width of each modality's features.
        dim: width of the latent vectors and of the fused feature.
        latents: how many latent vectors.
        rounds: how many times all modalities are read.
        heads: of the attention; they divide dim.
        dropout: probability of dropout, in training, of what is attended to.
    """

    def __init__(
        self,
        input_dims: Sequence[int],
        dim: int,
        *,
        latents: int = 8,
        rounds: int = 3,
        heads: int = 4,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        check_widths(input_dims, dim=dim, latents=latents, rounds=rounds)
        checks.check_groups("heads", heads, dim)
        checks.check_range("dropout", dropout, 0, 1)
        self.input_dims, self.rounds = tuple(input_dims), rounds
        self.latents = nn.Parameter(torch.randn(latents, dim))
        self.projections = nn.ModuleList(nn.Linear(d, dim, bias=False) for d in input_dims)
        self.token_norms = nn.ModuleList(nn.LayerNorm(dim) for _ in input_dims)
        self.query_norms = nn.ModuleList(nn.LayerNorm(dim) for _ in input_dims)
        self.cross = nn.ModuleList(
            nn.MultiheadAttention(dim, heads, dropout, batch_first=True) for _ in input_dims
        )
        self.cross_network = GatedFeedForward(dim)
        self.own_norm = nn.LayerNorm(dim)
        self.own = nn.MultiheadAttention(dim, heads, dropout, batch_first=True)
        self.own_network = GatedFeedForward(dim)
        self.norm = nn.LayerNorm(dim)

    def forward(self, features: Sequence[Tensor], *, present: Tensor | None = None) -> Tensor:
        """Maps features, (batch, d_i) or (batch, time_i, d_i) each, to (batch, dim).

        Args:
            features: floating-point tensors in the order of `input_dims`.
            present: (batch, N) bool, the modalities that a sample has, one at least; of a
                sequence all of it is absent.
        """
        sequences = as_tokens(self, features, self.input_dims, present)
        tokens = [self._tokens(i, x) for i, x in enumerate(sequences)]
        state = self.latents.expand(len(tokens[0]), -1, -1)
        for _ in range(self.rounds):
            for i, x in enumerate(tokens):
                read = self._read(i, state, x)
                if present is not None:
                    read = torch.where(present[:, i, None, None], read, state)
                state = read
            normed = self.own_norm(state)
            state = state + self.own(normed, normed, normed, need_weights=False)[0]
            state = state + self.own_network(state)
        return finite(self.norm(state.mean(1)))

    def _tokens(self, i: int, x: Tensor) -> Tensor:
        """Returns the normalised tokens of modality i, (batch, time, dim)."""
        tokens = self.projections[i](x)
        if tokens.shape[1] > 1:
            tokens = tokens + sinusoids(tokens.shape[1], tokens)
        return self.token_norms[i](tokens)

    def _read(self, i: int, state: Tensor, tokens: Tensor) -> Tensor:
        """Returns the latent vectors, (batch, latents, dim), that have read modality i."""
        query = self.query_norms[i](state)
        state = state + self.cross[i](query, tokens, tokens, need_weights=False)[0]
        return state + self.cross_network(state)
