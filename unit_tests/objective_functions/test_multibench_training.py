"""Every objective of MultiBench trains end to end through `train`, on real digits, as its examples.

Each is used as MultiBench's example of the method uses it, on quadrants of handwritten digits.
"""

import pytest
import torch
from torch import nn
from torch.testing import assert_close
from torch.utils.data import DataLoader, TensorDataset

from deq_fusion.datasets.digits.get_data import split_arrays
from deq_fusion.fusions.common_fusions import Concat
from deq_fusion.fusions.MVAE import ProductOfExperts_Zipped
from deq_fusion.objective_functions.objectives_for_supervised_learning import (
    CCA_objective,
    MFM_objective,
    MVAE_objective,
    RefNet_objective,
    RMFE_object,
)
from deq_fusion.objective_functions.recon import sigmloss1d, sigmloss1dcentercrop
from deq_fusion.training_structures.Supervised_Learning import MMDL, single_test, train
from deq_fusion.unimodals.common_models import GRU, MLP, Linear
from deq_fusion.unimodals.MVAE import (
    DeLeNet,
    LeNetEncoder,
    MLPEncoder,
    TSDecoder,
    TSEncoder,
)

LATENT, CLASSES, EPOCHS = 6, 10, 4


@pytest.fixture(scope="module")
def digits():
    """The first training and validation samples: (views, labels) each."""
    train_part, valid_part, _ = split_arrays(modalities=["top left", "bottom right"])
    parts = []
    for (views, labels), count in ((train_part, 90), (valid_part, 30)):
        tensors = [torch.from_numpy(x[:count]) for x in views]
        parts.append((tensors, torch.from_numpy(labels[:count])))
    return parts


def loaders(parts, prepare=lambda views: views, truth=lambda labels: labels):
    shuffled = torch.Generator().manual_seed(0)
    return [
        DataLoader(
            TensorDataset(*prepare(views), truth(labels)),
            batch_size=30,
            shuffle=i == 0,
            generator=shuffled if i == 0 else None,
        )
        for i, (views, labels) in enumerate(parts)
    ]


def once(modules, loaders, tmp_path, objective, more=(), told=None, **options):
    given = {
        "optimtype": torch.optim.Adam,
        "lr": 0.01,
        "save": tmp_path / "best.pt",
        "device": "cpu",
        "seed": 5,
        "progress": False,
        "track_complexity": False,
    }
    return train(
        *modules,
        *loaders,
        options.pop("epochs", EPOCHS),
        additional_optimizing_modules=list(more),
        objective=objective,
        objective_args_dict=told or {},
        **given | options,
    )


def weights(modules):
    encoders, fusion, head, *more = modules
    whole = nn.ModuleList([MMDL(encoders, fusion, head), *more])
    return {name: value.clone() for name, value in whole.state_dict().items()}


def check_learns(modules, history, before):
    losses = [epoch["train_loss"] for epoch in history.epochs]
    assert losses[-1] < losses[0]
    after, known = weights(modules), dict(nn.ModuleList(before[1]).named_parameters())
    unmoved = [name for name in known if torch.equal(after[name], before[0][name])]
    assert not unmoved


def parts_of(modules):
    """What `check_learns` compares: the values now, and the modules whose parameters they are."""
    encoders, fusion, head, *more = modules
    return weights(modules), [MMDL(encoders, fusion, head), *more]


def mvae():
    encoders = [MLPEncoder(16, 20, LATENT), TSEncoder(4, 5, LATENT, 4, batch_first=True)]
    decoders = [MLP(LATENT, 20, 16), TSDecoder(4, 5, LATENT, 4)]
    fusion = ProductOfExperts_Zipped((1, 40, LATENT))
    return [encoders, fusion, MLP(LATENT, 20, CLASSES), *decoders]


def mvae_options(decoders):
    objective = MVAE_objective(2.0, [sigmloss1d, sigmloss1d], [1.0, 1.0], annealing=0.1)
    return {"objective": objective, "more": decoders, "told": {"decoders": decoders}}


def as_series(views):
    return [views[0], views[1].reshape(-1, 4, 4)]


def test_mvae_of_vectors_and_series(digits, tmp_path):
    torch.manual_seed(1)
    modules = mvae()
    before = parts_of(modules)
    data = loaders(digits, as_series)
    history = once(modules[:3], data, tmp_path, **mvae_options(modules[3:]))
    check_learns(modules, history, before)
    model = torch.load(tmp_path / "best.pt", weights_only=False)  # as MultiBench's users do
    scores = single_test(model, data[1])
    assert scores["Accuracy"] == max(epoch["valid_accuracy"] for epoch in history.epochs)


class Killed(Exception):
    pass


def test_an_mvae_killed_and_resumed_ends_as_undisturbed(digits, tmp_path):
    def dying(valid, fatal):
        """A validation loader that stops the process in its stead."""

        class Loader:
            passes = 0

            def __iter__(self):
                self.passes += 1
                if self.passes == fatal:
                    raise Killed
                return iter(valid)

        return Loader()

    ends = []
    for fatal in (None, 3):
        torch.manual_seed(1)
        modules, folder = mvae(), tmp_path / str(fatal)
        folder.mkdir()
        data = loaders(digits, as_series)
        data[1] = dying(data[1], fatal)
        if fatal:
            with pytest.raises(Killed):
                once(modules[:3], data, folder, **mvae_options(modules[3:]))
            torch.manual_seed(2)  # another process, which draws other weights first
            modules, data = mvae(), loaders(digits, as_series)
        history = once(modules[:3], data, folder, resume=True, **mvae_options(modules[3:]))
        records = [
            {name: x for name, x in epoch.items() if name != "seconds"} for epoch in history.epochs
        ]
        ends.append((weights(modules), records))
    assert len(ends[0][1]) == EPOCHS and ends[0][1] == ends[1][1]
    assert_close(ends[0][0], ends[1][0], rtol=0, atol=0)


def test_mvae_of_images(digits, tmp_path):
    def images(views):  # 8 x 8, which the decoders make 10 x 10
        return [nn.functional.pad(x.reshape(-1, 1, 4, 4), (2, 2, 2, 2)) for x in views]

    torch.manual_seed(1)
    encoders = [LeNetEncoder(1, 3, 2, LATENT) for _ in range(2)]
    decoders = [DeLeNet(1, 3, 1, LATENT) for _ in range(2)]
    fusion = ProductOfExperts_Zipped((1, 40, LATENT))
    modules = [encoders, fusion, MLP(LATENT, 20, CLASSES), *decoders]
    losses = [sigmloss1dcentercrop(8, 10)] * 2
    before = parts_of(modules)
    objective = MVAE_objective(2.0, losses, [1.0, 1.0], annealing=0.0)
    history = once(
        *(modules[:3], loaders(digits, images), tmp_path, objective, decoders),
        told={"decoders": decoders},
    )
    check_learns(modules, history, before)


class Sequential2(nn.Module):
    """Two modules, one after the other."""

    def __init__(self, first, second):
        super().__init__()
        self.first, self.second = first, second

    def forward(self, x):
        return self.second(self.first(x))


def test_mfm(digits, tmp_path):
    torch.manual_seed(1)
    encoders = [MLP(16, 20, LATENT), TSEncoder(4, 5, LATENT, 4, returnvar=False)]
    decoders = [MLP(LATENT, 20, 16), TSDecoder(4, 5, LATENT, 4)]
    intermediates = [MLP(LATENT, LATENT // 2, LATENT // 2) for _ in range(2)]
    fusion = Sequential2(Concat(), MLP(2 * LATENT, LATENT, LATENT // 2))
    modules = [encoders, fusion, MLP(LATENT // 2, 20, CLASSES), *decoders, *intermediates]
    before = parts_of(modules)
    told = {"decoders": decoders, "intermediates": intermediates}
    objective = MFM_objective(2.0, [sigmloss1d, nn.MSELoss()], [1.0, 1.0])
    data = loaders(digits, as_series)
    history = once(modules[:3], data, tmp_path, objective, decoders + intermediates, told)
    check_learns(modules, history, before)


def test_cca(digits, tmp_path):
    torch.manual_seed(1)
    modules = [[MLP(16, 20, LATENT), MLP(16, 20, LATENT)], Concat(), Linear(2 * LATENT, CLASSES)]
    before = parts_of(modules)
    history = once(modules, loaders(digits), tmp_path, CCA_objective(LATENT, cca_weight=0.1))
    check_learns(modules, history, before)


def test_refnet_of_several_labels(digits, tmp_path):
    torch.manual_seed(1)
    refiner = MLP(2 * LATENT, 30, 32)
    modules = [[MLP(16, 20, LATENT) for _ in range(2)], Concat(), Linear(2 * LATENT, 3), refiner]
    before = parts_of(modules)
    objective = RefNet_objective(0.1, nn.BCEWithLogitsLoss())
    data = loaders(digits, truth=lambda y: torch.stack([y % 2, y // 5, y % 3 == 0], 1).long())
    history = once(
        *(modules[:3], data, tmp_path, objective, [refiner], {"refiner": refiner}),
        task="multilabel",
    )
    check_learns(modules, history, before)


def test_rmfe_of_three_modalities(tmp_path):
    parts = split_arrays(modalities=["top left", "top right", "bottom left"])[:2]
    parts = [([torch.from_numpy(x[:60]) for x in v], torch.from_numpy(y[:60])) for v, y in parts]

    def encoder():
        return nn.Sequential(nn.Linear(16, LATENT), nn.BatchNorm1d(LATENT), nn.ReLU())

    runs = []
    for weight in (1e-2, 0.0):
        torch.manual_seed(1)
        modules = [[encoder() for _ in range(3)], Concat(), Linear(3 * LATENT, 3)]
        before = parts_of(modules)
        data = loaders(parts, truth=lambda y: torch.stack([y % 2, y // 5, y % 3 == 0], 1).long())
        history = once(modules, data, tmp_path, RMFE_object(weight), task="multilabel")
        check_learns(modules, history, before)
        runs.append(weights(modules))
    name = "0.encoders.2.0.weight"  # of the third modality, too
    assert not torch.equal(runs[0][name], runs[1][name])


def test_rmfe_of_packed_sequences(digits, tmp_path):
    def packed(samples):
        *views, labels = zip(*samples, strict=True)
        features = [torch.stack(view).reshape(-1, 4, 4) for view in views]
        lengths = [torch.arange(len(labels)) % 3 + 2 for _ in features]
        return features, lengths, torch.arange(len(labels))[:, None], torch.stack(labels)[:, None]

    torch.manual_seed(1)
    encoders = [GRU(4, LATENT, dropout=True, has_padding=True) for _ in range(2)]
    modules = [encoders, Concat(), Linear(2 * LATENT, CLASSES)]
    before = parts_of(modules)
    data = loaders(digits)
    for loader in data:
        loader.collate_fn = packed
    objective = RMFE_object(1e-8, nn.CrossEntropyLoss(), is_packed=True)
    history = once(modules, data, tmp_path, objective, is_packed=True)
    check_learns(modules, history, before)
