"""MM-IMDb with deep equilibrium fusion (Ni et al., 2023, arXiv:2306.16645)."""

import os
import sys

import torch

sys.path.append(os.getcwd())

from datasets.imdb.get_data import get_dataloader  # noqa: E402
from fusions.deq import DEQFusion  # noqa: E402
from objective_functions.auxiliary_loss import WithAuxiliaryLoss  # noqa: E402
from training_structures.Supervised_Learning import test, train  # noqa: E402
from unimodals.common_models import Linear, MaxOut_MLP  # noqa: E402

filename = "best_deq.pt"
# without no_robust, here and below, the robustness to noise is tested too: that needs the raw data
traindata, validdata, testdata = get_dataloader(
    "../video/multimodal_imdb.hdf5", "../video/mmimdb", vgg=True, batch_size=128, no_robust=True
)

encoders = [
    MaxOut_MLP(512, 512, 300, linear_layer=False),
    MaxOut_MLP(512, 1024, 4096, 512, False),
]
head = Linear(512, 23)
fusion = DEQFusion([512, 512], 512, jacobian_weight=0.1)

# the objective adds the fusion's Jacobian penalty; objective_args_dict gives it the model
train(
    encoders,
    fusion,
    head,
    traindata,
    validdata,
    1000,
    early_stop=True,
    task="multilabel",
    save=filename,
    optimtype=torch.optim.AdamW,
    lr=1e-3,
    weight_decay=0.01,
    objective=WithAuxiliaryLoss(torch.nn.BCEWithLogitsLoss()),
    objective_args_dict={},
)

print("Testing:")
model = torch.load(filename, weights_only=False)  # the whole model, as train saved it
test(
    model,
    testdata,
    method_name="deq",
    dataset="imdb",
    criterion=torch.nn.BCEWithLogitsLoss(),
    task="multilabel",
    no_robust=True,
)
