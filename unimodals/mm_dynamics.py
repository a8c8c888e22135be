"""MM-Dynamics (Han et al., 2022): a host for multi-omics classification, with any fusion."""

from collections.abc import Sequence

from torch import Tensor, nn


class MMDynamics(nn.Module):
    """Weighs features and views by how informative they are, fuses, and classifies.

    For every view v (Han et al., 2022, sections 3.1 and 3.2)

        g_v = sigmoid(W_v x_v + b_v)              importance of each feature, (batch, d_v)
        h_v = Dropout(ReLU(E_v (x_v * g_v)))      (batch, hidden)
        l_v = C_v h_v                             logits of the view alone
        c_v = t_v^T h_v                           confidence in the view, one number a sample

    and the logits are a linear map of fusion([c_1 h_1, ..., c_V h_V]). The published model
    fuses by concatenation.

    Args:
        input_dims: number of features of each view.
        hidden: width of the h_v.
        num_classes: number of classes.
        fusion: maps a list of (batch, hidden) tensors to (batch, fused_dim).
        fused_dim: width of the fused feature; None if the fusion returns the logits itself.
        dropout: probability of dropout on the h_v.
    """

    def __init__(
        self,
        input_dims: Sequence[int],
        hidden: int,
        num_classes: int,
        fusion: nn.Module,
        fused_dim: int | None,
        *,
        dropout: float = 0.5,
    ) -> None:
        super().__init__()
        self.informativeness = nn.ModuleList(_linear(d, d) for d in input_dims)
        self.encoders = nn.ModuleList(
            nn.Sequential(_linear(d, hidden), nn.ReLU(), nn.Dropout(dropout)) for d in input_dims
        )
        self.classifiers = nn.ModuleList(_linear(hidden, num_classes) for _ in input_dims)
        self.confidences = nn.ModuleList(_linear(hidden, 1) for _ in input_dims)
        self.fusion = fusion
        self.head = nn.Identity() if fused_dim is None else _linear(fused_dim, num_classes)

    def forward(self, views: Sequence[Tensor]) -> tuple[Tensor, dict[str, list[Tensor]]]:
        """Maps views, (batch, d_v) each, to logits (batch, classes) and what the loss needs.

        The extras are lists with an entry for each view: `gates` (batch, d_v),
        `view_logits` (batch, classes) and `confidences` (batch,).
        """
        gates = [layer(x).sigmoid() for layer, x in zip(self.informativeness, views, strict=True)]
        hidden = [encoder(x * g) for encoder, x, g in zip(self.encoders, views, gates, strict=True)]
        logits = [classifier(h) for classifier, h in zip(self.classifiers, hidden, strict=True)]
        confidences = [layer(h) for layer, h in zip(self.confidences, hidden, strict=True)]
        fused = self.fusion([c * h for c, h in zip(confidences, hidden, strict=True)])
        extras = {
            "gates": gates,
            "view_logits": logits,
            "confidences": [c.squeeze(1) for c in confidences],
        }
        return self.head(fused), extras


def _linear(inputs: int, outputs: int) -> nn.Linear:
    linear = nn.Linear(inputs, outputs)
    nn.init.xavier_normal_(linear.weight)
    nn.init.zeros_(linear.bias)
    return linear
