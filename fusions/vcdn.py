"""View correlation discovery network (Wang et al., 2019): classes of all views, multiplied.

As MOGONET (Wang et al., 2021, Nature Communications 12:3445, equations 8 to 10) joins omics: with
s_v = sigmoid(logits_v) of K classes, the tensor of all products

    C[k_1, ..., k_V] = s_1[k_1] ... s_V[k_V]        K^V numbers

goes through a layer with LeakyReLU(0.25), and a linear map to the K logits.
"""

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from .modalities import check_widths, finite, without_absent

LARGEST = 2**16  # numbers in the tensor of products
WIDEST = 256  # of the hidden layer, unless asked for
SLOPE = 0.25


class VCDN(nn.Module):
    """Joins the logits of views by a network on the products of their class probabilities.

    Args:
        views: V, how many views there are.
        num_classes: K, at least 2.
        hidden: width of the hidden layer; by default K^V as published, and at most 256.

    Raises:
        ValueError: if K^V is more than 65536.
    """

    def __init__(self, views: int, num_classes: int, *, hidden: int | None = None) -> None:
        super().__init__()
        check_widths([views], num_classes=num_classes)
        if num_classes < 2:
            raise ValueError(f"num_classes must be at least 2, got {num_classes}")
        products = num_classes**views
        if products > LARGEST:
            raise ValueError(
                f"num_classes to the power of the number of views must be at most {LARGEST}, got "
                f"{num_classes}^{views}; take fewer views, or another fusion"
            )
        hidden = min(products, WIDEST) if hidden is None else hidden
        check_widths([hidden])
        self.views, self.num_classes = views, num_classes
        self.hidden, self.output = _linear(products, hidden), _linear(hidden, num_classes)

    def forward(self, logits: Sequence[Tensor], *, present: Tensor | None = None) -> Tensor:
        """Maps the views' logits, V times (..., classes), to joint ones (..., classes).

        Args:
            logits: floating-point tensors.
            present: (..., V) bool, the views that a sample has; the logits of the others count
                as zeros.
        """
        logits = without_absent(self, logits, [self.num_classes] * self.views, present)
        first, *others = (x.sigmoid() for x in logits)
        for probabilities in others:
            first = (first.unsqueeze(-1) * probabilities.unsqueeze(-2)).flatten(-2)
        joined = self.output(F.leaky_relu(self.hidden(first), SLOPE))
        return finite(joined.to(self.output.weight.dtype))


class VCDNFusion(nn.Module):
    """Fuses features into log-probabilities: a linear head for each modality, then VCDN.

    All of it is trained by the one loss on the joint logits; MOGONET, whose part it is, trains
    the views by losses of their own.

    Args:
        input_dims: width of each modality's features.
        num_classes: K, at least 2.
        hidden: see `VCDN`.
    """

    def __init__(
        self, input_dims: Sequence[int], num_classes: int, *, hidden: int | None = None
    ) -> None:
        super().__init__()
        check_widths(input_dims, num_classes=num_classes)
        self.input_dims = tuple(input_dims)
        self.heads = nn.ModuleList(_linear(width, num_classes) for width in input_dims)
        self.joint = VCDN(len(input_dims), num_classes, hidden=hidden)

    def forward(self, features: Sequence[Tensor], *, present: Tensor | None = None) -> Tensor:
        """Maps features, a (..., d_i) tensor for each modality, to (..., classes).

        Args:
            features: floating-point tensors in the order of `input_dims`.
            present: (..., N) bool, the modalities that a sample has, one at least; an absent
                one says 1/2 of every class.
        """
        features = without_absent(self, features, self.input_dims, present)
        outputs = [head(x) for head, x in zip(self.heads, features, strict=True)]
        dtype = self.heads[0].weight.dtype  # under autocast too
        joint = self.joint([x.to(dtype) for x in outputs], present=present)
        return joint.log_softmax(-1)


def _linear(inputs: int, outputs: int) -> nn.Linear:
    linear = nn.Linear(inputs, outputs)
    nn.init.xavier_normal_(linear.weight)
    nn.init.zeros_(linear.bias)
    return linear
