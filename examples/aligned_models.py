"""Published models of aligned sequences, compared whole: MFM and MCTN.

They take any recipe whose batches are aligned sequences or vectors, which are sequences of one
step (`unimodals/aligned.py`), with a network, losses and a training of their own.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import ReduceLROnPlateau
from torch.utils.data import DataLoader

from deq_fusion.fusions.memory_fusion import MemoryFusion
from deq_fusion.training_structures.comparison import Fusion, Recipe, System
from deq_fusion.training_structures.run import more_is_better
from deq_fusion.unimodals.mctn import MCTN
from deq_fusion.unimodals.mfm import MFM

SOURCE = "text"
SEEN = ("vision", "video")  # names of the modality that is translated to first
EPOCHS, PATIENCE = 200, 20  # as the release of MCTN has them; that of MFM has no patience
MFM_DIM = 64  # of the memory fusion network within
MFM_RATES = (5e-4, 1e-3, 2e-3, 5e-3, 1e-2)
MCTN_RATE, MCTN_RATES = 1e-4, (1e-4, 3e-4, 1e-3, 3e-3)


def meet_mfm(recipe: Recipe) -> Recipe:
    """Returns the recipe as MFM meets it: Adam, whose rate falls where validation stands still."""
    mode = "max" if more_is_better(recipe.select) else "min"
    return _met(
        recipe,
        build=partial(build_mfm, recipe.task),
        optimizer=partial(torch.optim.Adam, lr=1e-3),
        scheduler=partial(ReduceLROnPlateau, mode=mode),
        search={"lr": MFM_RATES},
    )


def meet_mctn(recipe: Recipe) -> Recipe:
    """Returns the recipe as MCTN meets it; the text is translated into what is seen, then heard.

    Raises:
        ValueError: without text.
    """
    names = list(recipe.modalities)
    if SOURCE not in names:
        raise ValueError(f"translates from {SOURCE}, and there is none among {', '.join(names)}")
    targets = sorted(set(names) - {SOURCE}, key=lambda name: (name not in SEEN, names.index(name)))
    return _met(
        recipe,
        build=partial(build_mctn, recipe.task, [names.index(name) for name in (SOURCE, *targets)]),
        optimizer=partial(torch.optim.Adam, lr=MCTN_RATE),
        scheduler=None,
        search={"lr": MCTN_RATES},
    )


def _met(recipe: Recipe, **own: Any) -> Recipe:
    """Returns the recipe with that much of its own; the objective is that of the prediction."""
    shared = {"accumulate": 1, "clip_norm": None, "parameters": None, "fusion_lr": {}}
    return replace(recipe, **shared, epochs=EPOCHS, patience=PATIENCE, **own)


def build_mfm(task: str, fusion: Fusion, train: DataLoader) -> nn.Module:
    """Returns MFM, with a memory fusion network for the code of all modalities.

    What that network returns is a rectified map of its states, from which the code is taken; the
    release takes it from the states themselves.
    """
    dims, outputs = sizes(task, train)
    return MFM(dims, outputs, MemoryFusion(dims, MFM_DIM), MFM_DIM)


def build_mctn(task: str, order: Sequence[int], fusion: Fusion, train: DataLoader) -> nn.Module:
    """Returns MCTN, which translates the modalities into each other in this order."""
    dims, outputs = sizes(task, train)
    return MCTN(dims, outputs, order=order)


def sizes(task: str, train: DataLoader) -> tuple[list[int], int]:
    """Returns the widths of the modalities' steps, and that of a prediction.

    Raises:
        ValueError: for sequences that are not aligned.
    """
    data = train.dataset
    if hasattr(data, "tensors"):
        views, truth = data.tensors[:-1], data.tensors[-1]
    else:
        views, truth = data.values, data.labels
    if len({view.shape[:-1] for view in views}) > 1:
        raise ValueError(
            "MFM and MCTN need sequences that are aligned, the same steps in every modality, got "
            f"(samples, steps) of {[tuple(view.shape[:-1]) for view in views]}; take a file whose "
            "sequences are aligned to words"
        )
    return [view.shape[-1] for view in views], _outputs(task, truth)


def _outputs(task: str, truth: Tensor) -> int:
    if task == "classification":
        return int(truth.max()) + 1
    return truth.shape[1] if truth.dim() > 1 else 1


ALIGNED = "aligned sequences, or vectors, of two or more modalities"
MODELS: Mapping[str, System] = {
    "mfm": System(
        meet_mfm,
        "factors of the label and of each modality, which are made anew (MFM)",
        "Tsai et al., 2019",
        ALIGNED,
        "MFN, and an LSTM to encode and one to decode each modality",
        modalities=(2, None),
    ),
    "mctn": System(
        meet_mctn,
        "text translated into the other modalities and back (MCTN)",
        "Pham et al., 2019",
        f"{ALIGNED}; to predict, the text alone",
        "LSTMs to encode and to decode with attention, a pair a translation",
        modalities=(2, None),
        needs=(SOURCE,),
    ),
}
