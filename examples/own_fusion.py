"""A fusion of your own against others: `python -m deq_fusion.examples.own_fusion`."""

from dataclasses import replace

import torch
from torch import Tensor, nn

from deq_fusion import compare
from deq_fusion.examples.digits.recipe import recipe
from deq_fusion.training_structures.comparison import Comparison


class Products(nn.Module):
    """The product of all modalities, each projected to one width: (batch, d_i) to (batch, dim)."""

    def __init__(self, input_dims: list[int], dim: int) -> None:
        super().__init__()
        self.projections = nn.ModuleList(nn.Linear(d, dim) for d in input_dims)

    def forward(self, features: list[Tensor]) -> Tensor:
        projected = [p(x) for p, x in zip(self.projections, features, strict=True)]
        return torch.stack(projected).prod(0)


def main(runs: int = 3, epochs: int | None = None) -> Comparison:
    """Compares it with DEQ fusion and concatenation on digits, and prints the table.

    On a command line: `deq-fusion compare --own-fusion my_module:Products --fusions deq,concat`.
    """
    benchmark = recipe()
    benchmark = benchmark if epochs is None else replace(benchmark, epochs=epochs)
    found = compare(benchmark, [Products, "deq", "concat"], runs=runs)
    print(found)
    return found


if __name__ == "__main__":
    main()
