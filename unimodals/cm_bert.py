"""CM-BERT (Yang et al., 2020): a host for text and word-aligned audio, with any fusion.

BERT's states of the tokens, and audio of five numbers a word, give an attention map each; their
fusion says how much the first token reads of every other. Sentiment is a number a text.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

PAD = 0
ENCODER_RATE, FUSION_RATE, DECAY = 2e-5, 0.01, 0.01  # as the release has them


class MapSum(nn.Module):
    """The published fusion, w_t S_t + w_a S_a + b with learnt scalars, 1, 1 and 0 at the start.

    It is three numbers whatever the length. The softmax that follows takes b out, so that b
    receives no gradient.
    """

    def __init__(self) -> None:
        super().__init__()
        self.weights = nn.Parameter(torch.ones(2))
        self.bias = nn.Parameter(torch.zeros(()))

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        text, audio = maps
        return self.weights[0] * text + self.weights[1] * audio + self.bias


class CMBERT(nn.Module):
    """Lets audio weigh the words of a text: masked multimodal attention (Yang et al., 2020).

    With X (length, dim), the text encoder's states of a sample, and its audio A

        T = X W_t,    S_t = ReLU(T T^T / |T|),    S_a = ReLU(A W_a (A W_a)^T)    (length, length)
        W_f[:, j] = fusion([S_t[:, j], S_a[:, j]])               of every token j
        P = Dropout(softmax_j(W_f[0]))                           of the first token
        Y = LayerNorm(Dropout(W_d (P X + X[0]) + b_d))

    and the prediction is a linear map of Dropout(Y). That is the release's model, which works
    out Y at all tokens and reads the first; published is `MapSum` as the fusion. Tokens are
    numbers of word pieces, 0 is padding.

    What is fused is a map's column, token j as all tokens see it; like the released DEQ
    fusion's this mixes the axis of queries. The maps being symmetric, a column is also the row
    of token j's own attention. The release's audio is zero at the first token, so row 0 of S_a
    is zero: of a fusion that works entry by entry, as `MapSum` does, its audio never reaches
    the prediction. It takes one that mixes a column's entries.

    Padding leaks nowhere. Its tokens are no samples of the fusion, their entries in the columns
    of the others are zero, and they are left out of the softmax (published: -10000 is added
    to their rows and columns, which comes to the same).

    One difference is meant. |T| is the Frobenius norm of the sample's own T at its tokens, a
    constant to the gradient. The release takes that of the whole batch, padding included, so
    that a prediction depends on its batch-mates; for n alike samples its S_t is smaller than
    here, by a factor of sqrt(n).

    And DEQ fusion in this slot is not the release's: a column is a sample here, normalised and
    solved on its own, where the release normalises and solves a whole map, padding included.

    Args:
        text: maps tokens (batch, length) to their states (batch, length, dim) and has `dim`, as
            `BertEncoder(pooled=False)` of unimodals/pretrained.py.
        audio_dim: width of a word's audio; the release has 5.
        fusion: maps a list of two (samples, length) tensors, of text and of audio, to
            (samples, fused_dim); `DEQFusion([50, 50], 50, groups=5)`, for one.
        length: tokens of a text, padding included.
        fused_dim: width of the fusion's result; None: `length`. Of another width, which is no
            column, a linear map reads W_f[0, j].
        inner: width of T, and of A W_a.
        attention_dropout: probability of dropout on P.
        dropout: probability of the other two.
        published_frozen: leave the text encoder's embeddings and the last linear map, which is
            random then, as they are; that is how the release trains.

    Raises:
        ValueError: for inputs, states or a fused feature that do not fit.
    """

    def __init__(
        self,
        text: nn.Module,
        audio_dim: int,
        fusion: nn.Module,
        *,
        length: int = 50,
        fused_dim: int | None = None,
        inner: int = 30,
        attention_dropout: float = 0.3,
        dropout: float = 0.1,
        published_frozen: bool = False,
    ) -> None:
        super().__init__()
        self.text, self.audio_dim, self.fusion = text, audio_dim, fusion
        self.length, self.fused_dim = length, length if fused_dim is None else fused_dim
        self.project_text = nn.Linear(text.dim, inner, bias=False)
        self.project_audio = nn.Linear(audio_dim, inner, bias=False)
        self.score = None if self.fused_dim == length else nn.Linear(self.fused_dim, 1)
        self.attention_dropout = nn.Dropout(attention_dropout)
        self.dense = _linear(text.dim, text.dim)
        self.norm = nn.LayerNorm(text.dim, eps=1e-12)
        self.dropout = nn.Dropout(dropout)
        self.regressor = _linear(text.dim, 1)
        if published_frozen:
            for name, parameter in self.named_parameters():
                part = name.partition(".")[0]
                if part == "regressor" or part == "text" and "embeddings." in name:
                    parameter.requires_grad_(False)

    def forward(self, inputs: Sequence[Tensor]) -> Tensor:
        """Maps [tokens (batch, length) int64, audio (batch, length, audio_dim)] to (batch, 1)."""
        states, audio, valid = _read(self.text, inputs, self.audio_dim, length=self.length)
        text = self.project_text(states)
        norm = torch.linalg.matrix_norm(text.detach(), keepdim=True)
        text = text / norm.clamp_min(torch.finfo(norm.dtype).tiny).sqrt()
        maps = [(x @ x.mT).relu() for x in (text, self.project_audio(audio))]
        attention = self.attention_dropout(self._scores(maps, valid).softmax(dim=1))
        read = (attention.unsqueeze(1) @ states).squeeze(1)
        summary = self.norm(self.dropout(self.dense(read + states[:, 0])))
        return self.regressor(self.dropout(summary))

    def _scores(self, maps: Sequence[Tensor], valid: Tensor) -> Tensor:
        """Returns W_f[0] (batch, length), minus infinity at padding."""
        columns = [m[valid] for m in maps]
        fused, expected = self.fusion(columns), (len(columns[0]), self.fused_dim)
        if fused.shape != expected:
            raise ValueError(
                f"the fusion must return {expected}, a row for each token, got "
                f"{tuple(fused.shape)}; fused_dim must be the width of its result"
            )
        scores = fused[:, 0] if self.score is None else self.score(fused).squeeze(1)
        return scores.new_full(valid.shape, -torch.inf).masked_scatter(valid, scores)


class CMBERTPooled(nn.Module):
    """CM-BERT's parts with a fusion of vectors, one of the text and one of the audio.

        h_t = X[0],    h_a = mean of A_j W_a over the text's tokens j

    The prediction is a linear map of Dropout(fusion([h_t, h_a])). No published model: it has
    in the slot what fusions are mostly made for.

    Args:
        text: see `CMBERT`.
        audio_dim: width of a word's audio.
        fusion: maps [h_t (batch, text.dim), h_a (batch, inner)] to (batch, fused_dim).
        fused_dim: width of the fused feature; None if the fusion returns the prediction itself.
        inner: width of h_a.
        dropout: probability of dropout on the fused feature.

    Raises:
        ValueError: for inputs or states that do not fit.
    """

    def __init__(
        self,
        text: nn.Module,
        audio_dim: int,
        fusion: nn.Module,
        *,
        fused_dim: int | None,
        inner: int = 30,
        dropout: float = 0.1,
    ) -> None:
        super().__init__()
        self.text, self.audio_dim, self.fusion = text, audio_dim, fusion
        self.project_audio = nn.Linear(audio_dim, inner, bias=False)
        self.dropout = nn.Identity() if fused_dim is None else nn.Dropout(dropout)
        self.regressor = nn.Identity() if fused_dim is None else _linear(fused_dim, 1)

    def forward(self, inputs: Sequence[Tensor]) -> Tensor:
        """Maps [tokens (batch, length) int64, audio (batch, length, audio_dim)] to (batch, 1)."""
        states, audio, valid = _read(self.text, inputs, self.audio_dim)
        audio = self.project_audio(audio).sum(dim=1) / valid.sum(dim=1, keepdim=True)
        return self.regressor(self.dropout(self.fusion([states[:, 0], audio])))


def parameter_groups(model: CMBERT | CMBERTPooled) -> list[dict[str, Any]]:
    """Returns the groups for an optimiser, with the release's rates and decoupled weight decay.

    All that requires a gradient (`published_frozen` decides) is in one of: weights of the text
    encoder, and the last linear map's (2e-5, decay 0.01); biases and LayerNorms (2e-5, no
    decay); the other weights, those between encoder and last map (0.01, decay 0.01).
    """
    norms = [m for m in model.modules() if isinstance(m, nn.LayerNorm)]
    normalising = {id(p) for norm in norms for p in norm.parameters()}
    encoder, plain, between = [], [], []
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        if "bias" in name or id(parameter) in normalising:
            plain.append(parameter)
        elif name.startswith(("text.", "regressor.")):
            encoder.append(parameter)
        else:
            between.append(parameter)
    return [
        {"params": encoder, "lr": ENCODER_RATE, "weight_decay": DECAY},
        {"params": plain, "lr": ENCODER_RATE, "weight_decay": 0.0},
        {"params": between, "lr": FUSION_RATE, "weight_decay": DECAY},
    ]


def _read(
    encoder: nn.Module, inputs: Sequence[Tensor], audio_dim: int, *, length: int | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """Returns states (batch, length, dim) and audio, zero at padding, and where no padding is."""
    tokens, audio = inputs
    wanted = "length" if length is None else length
    if tokens.ndim != 2 or length not in (None, tokens.shape[1]):
        raise ValueError(
            f"tokens must be (batch, {wanted}), got {tuple(tokens.shape)}; pad with 0, or cut"
        )
    if audio.shape != (*tokens.shape, audio_dim):
        raise ValueError(
            f"audio must be {(*tokens.shape, audio_dim)}, a row for each token, got "
            f"{tuple(audio.shape)}; pad or cut it as the tokens are"
        )
    valid = tokens != PAD
    if not valid[:, 0].all():
        rows = (~valid[:, 0]).nonzero().flatten().tolist()
        raise ValueError(
            f"every text must begin with a token, but {len(rows)} begin with padding, 0 "
            f"(first: {rows[:5]}); put [CLS] first, and padding behind"
        )
    states = encoder(tokens)
    if states.ndim != 3 or states.shape[:2] != tokens.shape:
        raise ValueError(
            f"the text encoder must return a state for each token, {(*tokens.shape, 'dim')}, got "
            f"{tuple(states.shape)}; BertEncoder does so with pooled=False"
        )
    here = valid.unsqueeze(2)
    return states.where(here, 0), audio.where(here, 0), valid


def _linear(inputs: int, outputs: int) -> nn.Linear:
    """A linear map as BERT starts its own."""
    linear = nn.Linear(inputs, outputs)
    nn.init.normal_(linear.weight, std=0.02)
    nn.init.zeros_(linear.bias)
    return linear
