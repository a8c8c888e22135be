"""Sentiment of utterances: an encoder a modality, a fusion, a linear head.

`--data-dir` holds one of the files that people have of CMU-MOSI (`FILES`): a vector an utterance
(`mosi_utterance.npz`), or sequences, MultiBench's or MMSA's, which go through a GRU each.

`--set host=cm_bert` or `cm_bert_pooled` puts the fusion into CM-BERT instead, see `cm_bert.py`.
"""

from collections.abc import Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Annotated

import torch
from scipy.stats import loguniform
from sklearn.linear_model import Ridge
from torch import Tensor, nn
from torch.utils.data import DataLoader

from deq_fusion.datasets.affect import get_data, mmsa, utterance
from deq_fusion.examples.affect import cm_bert
from deq_fusion.examples.affect.systems import systems
from deq_fusion.examples.checks import check_positive, own_split
from deq_fusion.examples.noise import vectors_or_sequences
from deq_fusion.training_structures.comparison import Fusion, Loaders, Recipe, Score
from deq_fusion.training_structures.metrics import sentiment
from deq_fusion.training_structures.Supervised_Learning import MMDL
from deq_fusion.unimodals.cm_bert import FUSION_RATE
from deq_fusion.unimodals.common_models import MLP
from deq_fusion.unimodals.masked import MaskedGRU

UTTERANCES = utterance.FILE
FILES = {
    UTTERANCES: utterance,
    "mosi_raw.pkl": get_data,
    "mosi_data.pkl": get_data,
    "aligned_50.pkl": mmsa,
    "unaligned_50.pkl": mmsa,
}
"""The files of CMU-MOSI, and what reads them."""

# chosen on validation for concatenation and DEQ fusion alike; the neighbours do as well
WIDTH, DROPOUT = 64, 0.3
BATCH_SIZE, EPOCHS, PATIENCE = 32, 100, 10
OPTIMIZER = partial(torch.optim.AdamW, lr=5e-4, weight_decay=0.01)
HOSTS = ("mlp", *cm_bert.HOSTS)
SCORES = (
    Score("mae", percent=False, lower=True),
    Score("corr", percent=False),
    *map(Score, ("acc7", "acc2", "f1", "acc2_nonzero", "f1_nonzero")),
)


def recipe(
    data_dir: str | Path | None = None,
    *,
    official: bool = False,
    file: Annotated[str | None, "name of the file; by default the one that is there"] = None,
    host: Annotated[
        str,
        "mlp (an encoder a modality, a fusion, a linear head), cm_bert (a fusion of its attention "
        "maps) or cm_bert_pooled (of its pooled vectors)",
    ] = "mlp",
    text_weights: Annotated[
        str | None,
        "of CM-BERT, local folder of BERT's weights; by default a small one from scratch",
    ] = None,
    patience: Annotated[
        int | None,
        "epochs without improvement after which training stops; by default the host's",
    ] = None,
    fusion_lr: Annotated[
        float, "of CM-BERT, rate of what lies between the encoder and the last map"
    ] = FUSION_RATE,
) -> Recipe:
    """Returns the recipe for the file in a folder: its own test part, a seed a run.

    Raises:
        ValueError: without the file, and for settings that make no sense.
    """
    folder = own_split(data_dir, official, f"one of {', '.join(FILES)}")
    if host not in HOSTS:
        raise ValueError(f"host must be one of {list(HOSTS)}, got {host!r}")
    check_positive(patience=patience, fusion_lr=fusion_lr)
    shared = {"metrics": sentiment, "scores": SCORES, "task": "regression"}
    if host != "mlp":
        path = find_file(folder, file, known=cm_bert.FILES)
        options = {"text_weights": text_weights, "patience": patience, "fusion_lr": fusion_lr}
        return Recipe(**shared, **cm_bert.fields(host, path, **options))
    if text_weights is not None or fusion_lr != FUSION_RATE:
        raise ValueError(
            "text_weights and fusion_lr are CM-BERT's: add --set host=cm_bert, or leave them out"
        )
    path = find_file(folder, file, known=FILES)
    sequences, names = path.name != UTTERANCES, FILES.get(path.name, get_data).MODALITIES
    return Recipe(
        **shared,
        name=f"CMU-MOSI, {path.name}" if sequences else "CMU-MOSI, utterance-level features",
        modalities=names,
        load=partial(load_sequences, path) if sequences else partial(load, folder),
        build=build_sequences if sequences else build,
        objective=nn.functional.l1_loss,
        epochs=EPOCHS,
        patience=patience or PATIENCE,
        optimizer=OPTIMIZER,
        search={"lr": loguniform(1e-4, 3e-3), "weight_decay": (1e-3, 1e-2, 1e-1)},
        floors={} if sequences else {"linear": linear_floor},
        systems=systems(sequences=sequences),
        noise=dict.fromkeys(names, vectors_or_sequences),
    )


def find_file(folder: Path, name: str | None, *, known: Iterable[str]) -> Path:
    """Returns the file of this name, or the one of those known that the folder has."""
    there = [folder / file for file in ([name] if name else known)]
    there = [path for path in there if path.is_file()]
    if len(there) != 1:
        found = f"{len(there)}: {', '.join(path.name for path in there)}" if there else "none"
        raise ValueError(
            f"{folder} must hold one of {name or ', '.join(known)}, got {found}; name another "
            "folder, or the file by --set file=NAME. deq-fusion prepare mosi --data-dir "
            f"{folder} tells where to get them"
        )
    return there[0]


def load_sequences(path: Path, run: int, modalities: Sequence[str]) -> Loaders:
    """Returns the loaders of ([sequences], [masks], labels), standardised by train."""
    options = {"modalities": modalities, "batch_size": BATCH_SIZE, "scale": True}
    if FILES.get(path.name) is mmsa:
        return mmsa.get_dataloader(path, **options)
    return get_data.get_dataloader(path, num_workers=0, masks=True, **options)


class Masked(nn.Module):
    """Encoders of masked sequences, a fusion, and a head."""

    def __init__(self, encoders: Sequence[nn.Module], fusion: nn.Module, head: nn.Module) -> None:
        super().__init__()
        self.encoders, self.fusion, self.head = nn.ModuleList(encoders), fusion, head

    def forward(self, inputs: tuple[Sequence[Tensor], Sequence[Tensor]]) -> Tensor:
        """Maps [sequences], (batch, steps, d_m), and [masks], (batch, steps), to (batch, 1)."""
        pairs = zip(self.encoders, *inputs, strict=True)
        return self.head(self.fusion([encoder(x, mask) for encoder, x, mask in pairs]))


def build_sequences(fusion: Fusion, train: DataLoader) -> nn.Module:
    """Returns a GRU for each modality, the fusion, and a linear head if it needs one."""
    dims = [values.shape[-1] for values in train.dataset.values]
    encoders = [MaskedGRU(dim, WIDTH, dropout=DROPOUT) for dim in dims]
    module, width = fusion([WIDTH] * len(dims), WIDTH, 1)
    return Masked(encoders, module, nn.Identity() if width is None else nn.Linear(width, 1))


def load(path: Path, run: int, modalities: Sequence[str]) -> Loaders:
    """Returns the loaders of a run; the validation videos are chosen by the run's number."""
    return utterance.get_dataloader(
        path, modalities=modalities, batch_size=BATCH_SIZE, split_seed=run
    )


def build(fusion: Fusion, train: DataLoader) -> nn.Module:
    """Returns an encoder for each modality, the fusion, and a linear head if it needs one."""
    views = train.dataset.tensors[:-1]
    encoders = [MLP(v.shape[1], WIDTH, WIDTH, dropout=True, dropoutp=DROPOUT) for v in views]
    module, width = fusion([WIDTH] * len(views), WIDTH, 1)
    return MMDL(encoders, module, nn.Identity() if width is None else nn.Linear(width, 1))


def linear_floor(known: Sequence[DataLoader], scored: DataLoader) -> Tensor:
    """Ridge regression (alpha 300) on the concatenated features, (n, 1)."""
    *views, labels = (
        torch.cat(parts) for parts in zip(*(b for loader in known for b in loader), strict=True)
    )
    model = Ridge(alpha=300).fit(torch.cat(views, 1).numpy(), labels.flatten().numpy())
    features = torch.cat([torch.cat(batch[:-1], 1) for batch in scored])
    return torch.from_numpy(model.predict(features.numpy())).float()[:, None]
