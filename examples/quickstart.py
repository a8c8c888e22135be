"""DEQ fusion in plain torch: `python -m deq_fusion.examples.quickstart`."""

import torch
from sklearn.datasets import load_digits
from torch import nn

from deq_fusion import DEQFusion


def main(epochs: int = 10) -> float:
    """Trains on the halves of digits; prints and returns the accuracy on those not seen."""
    torch.manual_seed(0)
    images, labels = (torch.from_numpy(x) for x in load_digits(return_X_y=True))
    images = images.float().reshape(-1, 8, 8) / 16
    halves = [images[:, :, :4].flatten(1), images[:, :, 4:].flatten(1)]

    encoders = nn.ModuleList(nn.Sequential(nn.Linear(32, 64), nn.ReLU()) for _ in halves)
    fusion = DEQFusion([64, 64], dim=64, jacobian_weight=1.0)
    head = nn.Linear(64, 10)
    optimizer = torch.optim.Adam(nn.ModuleList([encoders, fusion, head]).parameters(), lr=3e-3)

    def logits(rows: torch.Tensor) -> torch.Tensor:
        return head(fusion([e(x[rows]) for e, x in zip(encoders, halves, strict=True)]))

    for _ in range(epochs):
        for rows in torch.randperm(1400).split(100):
            loss = nn.functional.cross_entropy(logits(rows), labels[rows])
            optimizer.zero_grad()
            (loss + fusion.auxiliary_loss).backward()  # the penalty keeps the map contractive
            optimizer.step()
    unseen = torch.arange(1400, len(labels))
    accuracy = (logits(unseen).argmax(1) == labels[unseen]).double().mean().item()
    print(f"accuracy {accuracy:.1%}; {fusion.info.converged.double().mean():.1%} converged")
    return accuracy


if __name__ == "__main__":
    main()
