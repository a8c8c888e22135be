"""DEQ fusion as MultiBench trains: `python -m deq_fusion.examples.inside_multibench`.

In a checkout of MultiBench with `fusions/deq.py`, `fusions/equilibrium` and
`objective_functions/auxiliary_loss.py` copied into it, leave `deq_fusion.` out of every import.
"""

import torch
from torch import nn

from deq_fusion.datasets.digits.get_data import get_dataloader
from deq_fusion.fusions.deq import DEQFusion
from deq_fusion.objective_functions.auxiliary_loss import WithAuxiliaryLoss
from deq_fusion.training_structures.Supervised_Learning import MMDL, test, train
from deq_fusion.unimodals.common_models import MLP, Linear


def main(epochs: int = 10, path: str = "best.pt") -> None:
    """Trains on digits in two modalities, then tests; MultiBench's functions print how it goes.

    Args:
        epochs: at most.
        path: file of the best model, which MultiBench's scripts load to test.
    """
    torch.manual_seed(0)
    modalities = ["top left", "bottom right"]
    traindata, validdata, testdata = get_dataloader(batch_size=64, modalities=modalities)
    encoders = [MLP(16, 64, 64), MLP(16, 64, 64)]
    fusion, head = DEQFusion([64, 64], 64, jacobian_weight=1.0), Linear(64, 10)
    # the penalty is added by the objective: MultiBench's loop does not know of it
    options = {"objective": WithAuxiliaryLoss(nn.CrossEntropyLoss()), "objective_args_dict": {}}
    options |= {"optimtype": torch.optim.Adam, "lr": 2e-3, "save": path}
    train(encoders, fusion, head, traindata, validdata, epochs, **options)
    test(MMDL(encoders, fusion, head), testdata, no_robust=True)  # as of the last epoch


if __name__ == "__main__":
    main()
