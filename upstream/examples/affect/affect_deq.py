"""CMU-MOSI with deep equilibrium fusion (Ni et al., 2023, arXiv:2306.16645)."""

import os
import sys

import torch

sys.path.insert(1, os.getcwd())

from datasets.affect.get_data import get_dataloader  # noqa: E402
from fusions.deq import DEQFusion  # noqa: E402
from objective_functions.auxiliary_loss import WithAuxiliaryLoss  # noqa: E402
from training_structures.Supervised_Learning import test, train  # noqa: E402
from unimodals.common_models import GRU, MLP  # noqa: E402

# mosi_data.pkl, mosei_senti_data.pkl
# mosi_raw.pkl, mosei_raw.pkl, sarcasm.pkl, humor.pkl
# raw_path: mosi.hdf5, mosei.hdf5, sarcasm_raw_text.pkl, humor_raw_text.pkl
traindata, validdata, testdata = get_dataloader(
    "/home/pliang/multibench/affect/pack/mosi/mosi_raw.pkl", robust_test=False, data_type="mosi"
)

# mosi/mosei
encoders = [
    GRU(35, 70, dropout=True, has_padding=True, batch_first=True),
    GRU(74, 200, dropout=True, has_padding=True, batch_first=True),
    GRU(300, 600, dropout=True, has_padding=True, batch_first=True),
]
head = MLP(128, 512, 1)
fusion = DEQFusion([70, 200, 600], 128, jacobian_weight=0.01)

# the objective adds the fusion's Jacobian penalty; objective_args_dict gives it the model
train(
    encoders,
    fusion,
    head,
    traindata,
    validdata,
    100,
    task="regression",
    optimtype=torch.optim.AdamW,
    early_stop=True,
    is_packed=True,
    lr=1e-3,
    save="mosi_deq_best.pt",
    weight_decay=0.01,
    objective=WithAuxiliaryLoss(torch.nn.L1Loss()),
    objective_args_dict={},
)

print("Testing:")
model = torch.load("mosi_deq_best.pt", weights_only=False)  # the whole model, as train saved it
test(
    model=model,
    test_dataloaders_all=testdata,
    dataset="mosi",
    is_packed=True,
    criterion=torch.nn.L1Loss(),
    task="posneg-classification",
    no_robust=True,
)
