"""MCAN and Mutan, the hosts of Ni et al. (2023), Table 4: as published, and small enough for CPUs.

- `mcan` (Yu et al., 2019): `small`, `large`, or `tiny`. Its published fusion is `sum`.
- `mutan` and `mutan_att` (Ben-younes et al., 2017), without and with attention to the regions of
  the image: `published` or `tiny`. Their published fusion is `mutan`.

Losses, optimisers, schedules, batches and numbers of epochs are the published ones, of `tiny` but
for the learning rate. MCAN's loss is summed over a batch as published; here it is the mean over
its questions, which Adam does not tell from the sum, eps apart. Words' vectors and Mutan's
question encoder start at random, where the published models start from GloVe and skip-thoughts.

Unlike MCAN's release, the last batch of an epoch is not dropped for being small; unlike Mutan's, a
question is learnt from if any annotator's answer is in the vocabulary, not just the most common.

Where protocols differ, this project's holds: the epoch is chosen, and training stopped, on a
validation part that is cut from train, where the published ones look at what they report.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR
from torch.utils.data import DataLoader

from deq_fusion.datasets.vqa.get_data import VQA
from deq_fusion.examples.parts import in_parts
from deq_fusion.objective_functions.answers import sampled_answer_loss, soft_answer_loss
from deq_fusion.training_structures.comparison import Fusion
from deq_fusion.training_structures.Supervised_Learning import MMDL
from deq_fusion.unimodals.mcan import MCAN, PRESETS
from deq_fusion.unimodals.mutan_vqa import MutanAtt, MutanNoAtt
from deq_fusion.unimodals.skip_thought import SkipThought
from deq_fusion.unimodals.vqa import RegionMean

DROPOUT = 0.5  # of Mutan, on all but the question's words
TINY_LR = 5e-4


@dataclass(frozen=True)
class Host:
    """A model around a fusion, and how it is trained.

    Attributes:
        build: (fusion, train loader) -> model, of the modalities that the loader gives.
        lr: the optimiser's learning rate.
        epochs: the most a run may take.
        batch_size: questions a step, taken in `accumulate` batches.
        protocol: "mcan" or "mutan", whose words and answers it learns.
        objective: see `Recipe`.
        optimizer: see `Recipe`.
        scheduler: see `Recipe`.
        accumulate: see `Recipe`.
        fusion_options: see `Recipe`.
    """

    build: Callable[[Fusion, DataLoader], nn.Module]
    lr: float
    epochs: int
    batch_size: int = 64
    protocol: str = "mcan"
    objective: Callable[..., Tensor] = soft_answer_loss
    optimizer: Callable = torch.optim.Adam
    scheduler: Callable | None = None
    accumulate: int = 1
    fusion_options: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)


@dataclass(frozen=True)
class MutanSize:
    """Widths of a Mutan: question, word, embedded modality, fused feature; and the rank."""

    question: int
    word: int
    hidden: int
    fused: int
    rank: int


MCAN_SIZES = {**PRESETS, "tiny": {"hidden": 128, "out": 256, "layers": 2, "heads": 4}}
MUTAN_SIZES = {
    "mutan": {
        "published": MutanSize(2400, 620, 360, 360, 10),
        "tiny": MutanSize(128, 64, 64, 64, 5),
    },
    "mutan_att": {
        "published": MutanSize(2400, 620, 310, 510, 5),
        "tiny": MutanSize(128, 64, 64, 64, 3),
    },
}
SIZES = {"mcan": list(MCAN_SIZES), **{host: list(sizes) for host, sizes in MUTAN_SIZES.items()}}
"""Host -> its sizes, the default first."""


def find_host(name: str, size: str) -> Host:
    """Returns a host of `SIZES`, of one of its sizes."""
    return _mcan(size) if name == "mcan" else _mutan(name, size)


def _mcan(size: str) -> Host:
    return Host(
        build=partial(build_mcan, size),
        lr={"small": 1e-4, "large": 5e-5, "tiny": TINY_LR}[size],
        epochs=13,
        optimizer=partial(torch.optim.Adam, betas=(0.9, 0.98), eps=1e-9),
        scheduler=mcan_schedule,
        accumulate=2 if size == "large" else 1,
    )


def _mutan(name: str, size: str) -> Host:
    sizes = MUTAN_SIZES[name][size]
    # the host embeds the features, and drops some of them, before they are fused
    options = {"mutan": {"rank": sizes.rank, "hidden": None, "dropout": 0.0}}
    if sizes.fused == 510:  # which the usual 4 parts do not divide
        options |= in_parts(5)
    return Host(
        build=partial(build_mutan, name, size),
        lr=1e-4 if size == "published" else TINY_LR,
        epochs=100,
        batch_size=128 if name == "mutan_att" else 512,
        protocol="mutan",
        objective=sampled_answer_loss,
        fusion_options=options,
    )


def mcan_schedule(optimizer: torch.optim.Optimizer) -> LambdaLR:
    """The rate of each epoch, counted from 0, as MCAN's release has it (Yu et al., 2019).

    A quarter, a half, three quarters of it, then all; from epoch 10 a fifth, from 12 a fifth of
    that.
    """
    return LambdaLR(
        optimizer, lambda epoch: min(1, (epoch + 1) / 4) * 0.2 ** ((epoch >= 10) + (epoch >= 12))
    )


def build_mcan(size: str, fusion: Fusion, train: DataLoader) -> nn.Module:
    """Returns MCAN around the fusion; one modality goes through its own layers alone."""
    views, data, sizes = _views(train), train.dataset.dataset, MCAN_SIZES[size]
    module, width = fusion([sizes["out"]] * len(views), sizes["out"], len(data.answers))
    return MCAN(
        module,
        width,
        len(data.answers),
        words=data.words if "question" in views else None,
        region_dim=data.widths.get("image"),
        **sizes,
    )


def build_mutan(name: str, size: str, fusion: Fusion, train: DataLoader) -> nn.Module:
    """Returns Mutan around the fusion, which is given the question before the image.

    One modality alone goes without attention: the question's state, or the mean of the image's
    regions through a hidden layer each, goes to the fusion and a linear map.
    """
    views, data, sizes = _views(train), train.dataset.dataset, MUTAN_SIZES[name][size]
    answers, question = len(data.answers), {"question_dim": sizes.question, "embedding": sizes.word}
    if len(views) == 1:
        return _alone(views[0], sizes, fusion, data)
    image, hidden = data.widths["image"], sizes.hidden
    options = {"hidden": hidden, "dropout": DROPOUT, **question}
    if name == "mutan":
        module, width = fusion([hidden, hidden], sizes.fused, answers)
        return MutanNoAtt(data.words, image, answers, module, width, **options)
    module, width = fusion([hidden, 2 * hidden], sizes.fused, answers)
    options |= {"attended": sizes.fused, "rank": sizes.rank}
    return MutanAtt(data.words, image, answers, QuestionFirst(module), width, **options)


class QuestionFirst(nn.Module):
    """Gives a fusion the question before the glimpses, in the order of the recipe's modalities."""

    def __init__(self, fusion: nn.Module) -> None:
        super().__init__()
        self.fusion = fusion

    def forward(self, features: Sequence[Tensor]) -> Tensor:
        glimpses, question = features
        return self.fusion([question, glimpses])


def _alone(view: str, sizes: MutanSize, fusion: Fusion, data: VQA) -> nn.Module:
    if view == "question":
        dim, encoder = sizes.question, SkipThought(data.words, sizes.question, embedding=sizes.word)
    else:
        dim = sizes.hidden
        encoder = RegionMean(data.widths["image"], dim, dropout=DROPOUT)
    module, width = fusion([dim], sizes.fused, len(data.answers))
    linear = None if width is None else nn.Linear(width, len(data.answers))
    head = nn.Identity() if linear is None else nn.Sequential(nn.Dropout(DROPOUT), linear)
    return MMDL([encoder], module, head)


def _views(train: DataLoader) -> Sequence[str]:
    views = train.dataset.views
    if views not in (("question", "image"), ("question",), ("image",)):
        raise ValueError(
            f"MCAN and Mutan read a question, then an image, got modalities {list(views)}; give "
            "--modalities in that order"
        )
    return views
