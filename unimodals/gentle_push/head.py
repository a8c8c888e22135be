"""Recurrent heads for Gentle Push, after Lee et al., "Multimodal Sensor Fusion" (2020)."""

from torch import Tensor, nn


class Head(nn.Module):
    """An LSTM of two layers and an MLP: (time, batch, units) to positions (time, batch, 2).

    Args:
        units: width of the fused feature, and of the MLP's hidden layer.
    """

    def __init__(self, units: int = 64) -> None:
        super().__init__()
        self.state_dim = 2
        self.lstm_hidden_dim = 512
        self.lstm_num_layers = 2
        self.units = units
        self.lstm = nn.LSTM(units, self.lstm_hidden_dim, self.lstm_num_layers)
        self.output_layers = nn.Sequential(
            nn.Linear(self.lstm_hidden_dim, units),
            nn.ReLU(inplace=True),
            nn.Linear(units, self.state_dim),
        )

    def forward(self, fused_features: Tensor) -> Tensor:
        return self.output_layers(self.lstm(fused_features)[0])


class GentlePushLateLSTM(nn.Module):
    """An LSTM's states at every step, (time, batch, input_size) to (time, batch, hidden_size).

    Args:
        input_size: width of the feature.
        hidden_size: width of the states.
    """

    def __init__(self, input_size: int, hidden_size: int) -> None:
        super().__init__()
        self.lstm = nn.LSTM(input_size, hidden_size)

    def forward(self, x: Tensor) -> Tensor:
        return self.lstm(x)[0]
