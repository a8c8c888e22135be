"""Encoders of a question, as words, and of an image, as regions; 0 pads both."""

from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence

PAD = 0


class WordBag(nn.Module):
    """A question as the mean of its words' vectors, through a hidden layer: their order is lost.

    Args:
        words: size of the vocabulary, padding included.
        dim: width of the result.
        embedding: width of a word's vector.
        dropout: share of the vectors' entries left out in training.
    """

    def __init__(self, words: int, dim: int, *, embedding: int = 300, dropout: float = 0.0) -> None:
        super().__init__()
        self.embedding = nn.Embedding(words, embedding, padding_idx=PAD)
        self.head = nn.Sequential(nn.Dropout(dropout), nn.Linear(embedding, dim), nn.ReLU())

    def forward(self, tokens: Tensor) -> Tensor:
        """Maps tokens (batch, length) to (batch, dim); a question without words is a zero mean."""
        return self.head(masked_mean(self.embedding(tokens), tokens != PAD))


class QuestionLSTM(nn.Module):
    """A question as the state of an LSTM after its last word (Antol et al., 2015).

    Args:
        words: size of the vocabulary, padding included.
        dim: width of the state.
        embedding: width of a word's vector.
        dropout: share of the vectors' entries left out in training.
    """

    def __init__(self, words: int, dim: int, *, embedding: int = 300, dropout: float = 0.0) -> None:
        super().__init__()
        self.embedding = nn.Embedding(words, embedding, padding_idx=PAD)
        self.dropout = nn.Dropout(dropout)
        self.lstm = nn.LSTM(embedding, dim, batch_first=True)

    def forward(self, tokens: Tensor) -> Tensor:
        """Maps tokens (batch, length), padded on the right, to (batch, dim)."""
        lengths = (tokens != PAD).sum(dim=1).clamp(min=1).cpu()  # without words: one of padding
        words = self.dropout(self.embedding(tokens))
        packed = pack_padded_sequence(words, lengths, batch_first=True, enforce_sorted=False)
        _, (state, _) = self.lstm(packed)
        return state[-1]


class RegionMean(nn.Module):
    """An image as the mean of its regions, each through a hidden layer.

    Args:
        region_dim: width of a region's features.
        dim: width of the result.
        dropout: share of the features left out in training.
    """

    def __init__(self, region_dim: int, dim: int, *, dropout: float = 0.0) -> None:
        super().__init__()
        self.head = nn.Sequential(nn.Dropout(dropout), nn.Linear(region_dim, dim), nn.ReLU())

    def forward(self, regions: Tensor) -> Tensor:
        """Maps (batch, regions, region_dim) to (batch, dim); regions of zeros are padding."""
        return masked_mean(self.head(regions), (regions != 0).any(dim=2))


def masked_mean(values: Tensor, kept: Tensor) -> Tensor:
    """Returns the mean over the kept positions: (batch, n, d), (batch, n) bool -> (batch, d).

    The mean over none is zero.
    """
    weights = kept.to(values.dtype)[:, :, None]
    return (values * weights).sum(dim=1) / weights.sum(dim=1).clamp(min=1)
