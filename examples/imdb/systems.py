"""The systems and floors of MM-IMDB, for its recipe and for `deq-fusion list`.

The systems are those of Ni et al. (2023), Table 2: networks and trainings of their own.

What trains as published, and what differs, stands at each. Learning rates are the published ones
unless the recipe is given one; the scores, the split, the batches, the selection on validation
data and the bound on epochs without improvement are those of all other rows.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.optim.lr_scheduler import ReduceLROnPlateau
from torch.utils.data import DataLoader

from deq_fusion.examples.paradigms.systems import paradigms
from deq_fusion.fusions.common_fusions import Concat
from deq_fusion.training_structures import distributed
from deq_fusion.training_structures.comparison import About, Fusion, Recipe, System
from deq_fusion.training_structures.fit import fit
from deq_fusion.training_structures.run import History, load_best
from deq_fusion.training_structures.Supervised_Learning import MMDL
from deq_fusion.unimodals.common_models import MLP, MaxOut_MLP
from deq_fusion.unimodals.dynmm import DynMM, OneModality
from deq_fusion.unimodals.mmbt import MMBT, ImageRegions, rounds
from deq_fusion.unimodals.pmf import PMF
from deq_fusion.unimodals.pretrained import BertEncoder, ResNetEncoder, ViTEncoder

DECAYED = partial(torch.optim.AdamW, weight_decay=1e-2)
ORDER = "text", "image"  # in which the networks of both read them
Build = Callable[[Fusion, DataLoader], nn.Module]
Weights = str | Path | None
"""A local folder; what it holds decides a run, so that a comparison must be given a Path."""


FLOORS: Mapping[str, About] = {
    "linear": About(
        "logistic regression, one a genre, C = 1",
        "classical",
        "vectors, standardised, side by side",
        "width x genres",
    ),
}


def systems(
    *,
    encoders: str = "vgg_word2vec",
    text_weights: Weights = None,
    image_weights: Weights = None,
    vit_weights: Weights = None,
    width: int = 512,
    lr: float | None = None,
    expert_lr: float | None = None,
    size: int = 224,
) -> dict[str, System]:
    """Returns the published models that are compared whole, by name.

    The arguments are settings of the recipe. What has an untrained BERT or ViT says so.
    """
    of_features = _of_features(encoders, width, lr, expert_lr)
    of_films = _of_films(encoders, text_weights, image_weights, vit_weights, lr, size)
    return of_features | of_films | (paradigms() if encoders == "vgg_word2vec" else {})


def _of_features(
    encoders: str, width: int, lr: float | None, expert_lr: float | None
) -> dict[str, System]:
    return {
        "early": System(
            partial(meet_early, encoders, width, lr),
            summary="inputs concatenated, one maxout network",
            source="Liang et al., 2021",
            takes="features",
            cost="2 N d_in d",
            modalities=(2, None),
        ),
        "dynmm": System(
            partial(meet_dynmm, encoders, width, lr, expert_lr),
            summary="a gate sends a film to a text expert, or to late fusion",
            source="Xue and Marculescu, 2023",
            takes="features of text and image",
            cost="the text expert's, or late fusion's",
            modalities=(2, 2),
        ),
    }


def _of_films(
    encoders: str,
    text_weights: Weights,
    image_weights: Weights,
    vit_weights: Weights,
    lr: float | None,
    size: int,
) -> dict[str, System]:
    bert = "" if text_weights else ", untrained weights"
    both = "" if text_weights and vit_weights else ", untrained weights"
    return {
        "mmbt": System(
            partial(meet_mmbt, encoders, text_weights, image_weights, lr),
            summary=f"BERT over tokens of regions and text{bert}",
            source="Kiela et al., 2019",
            takes="plots, and posters or features of them",
            cost="BERT's",
            modalities=(2, 2),
        ),
        "pmf": System(
            partial(meet_pmf, encoders, text_weights, vit_weights, size, lr),
            summary=f"prompts between a frozen BERT and ViT{both}",
            source="Li et al., 2023",
            takes="plots and posters",
            cost="BERT's and ViT's, the last layers twice",
            modalities=(2, 2),
        ),
    }


def meet_early(encoders: str, width: int, lr: float | None, recipe: Recipe) -> Recipe:
    """MultiBench's early fusion of MM-IMDB (Liang et al., 2021), at its rate, 4e-2."""
    _check_encoders(encoders, "vgg_word2vec")
    optimizer = partial(DECAYED, lr=lr or 4e-2)
    return replace(recipe, build=partial(build_early, width), optimizer=optimizer, fusion_lr={})


def build_early(width: int, fusion: Fusion, train: DataLoader) -> nn.Module:
    """Returns one maxout network on all features, side by side as they are read."""
    data = train.dataset
    network = MaxOut_MLP(data.genres.shape[1], width, sum(data.widths))
    return MMDL([nn.Identity() for _ in data.widths], Concat(), network)


def meet_dynmm(
    encoders: str, width: int, lr: float | None, expert_lr: float | None, recipe: Recipe
) -> Recipe:
    """DynMM (Xue and Marculescu, 2023), by the steps and at the rates of its release.

    Late fusion learns at 8e-3, the text expert and then the whole at 1 / 80 of that. A few
    thousand films are too few steps for the text expert at that rate: late fusion gets them all.
    """
    _check_encoders(encoders, "vgg_word2vec")
    _check_order(recipe)
    rate = lr or 8e-3
    expert = expert_lr / rate if expert_lr else 1 / 80
    return replace(
        recipe,
        build=partial(build_dynmm, width, recipe.build),
        optimizer=partial(DECAYED, lr=rate),
        fusion_lr={},
        train=partial(train_experts_first, rates=(expert, 1.0, 1 / 80)),
    )


def build_dynmm(width: int, late: Build, fusion: Fusion, train: DataLoader) -> nn.Module:
    """Returns DynMM over a text expert and late fusion, the network that `late` builds."""
    data = train.dataset
    text, genres = data.widths[0], data.genres.shape[1]
    expert = nn.Sequential(MLP(text, width, width), MLP(width, width, genres))
    return DynMM([OneModality(expert), late(_concat, train)], data.widths)


def _concat(input_dims: Sequence[int], dim: int, outputs: int) -> tuple[nn.Module, int]:
    return Concat(), sum(input_dims)


def train_experts_first(
    model: DynMM,
    train: DataLoader,
    valid: DataLoader,
    objective: Callable[..., Any],
    *,
    rates: Sequence[float],
    optimizer: partial,
    parameters: Sequence[Any],
    checkpoint: Any = None,
    checkpoint_seconds: float = 0.0,
    resume: bool = False,
    callbacks: Sequence[Any] = (),
    **options: Any,
) -> History:
    """Trains as `fit`: each expert on its own, to its best epoch on validation, then the whole.

    The history is that of the whole; the seconds of its first epoch count the experts', too. A
    run that is resumed from a checkpoint, which is of the whole, goes on with that; one that was
    interrupted before there was any begins anew.

    Args:
        model: DynMM.
        train: see `fit`.
        valid: see `fit`.
        objective: see `fit`.
        rates: learning rate of each expert, and of the whole, as shares of the optimiser's.
        optimizer: a partial with `lr`.
        parameters: see `fit`, of the whole.
        checkpoint: see `fit`.
        checkpoint_seconds: see `fit`.
        resume: see `fit`.
        callbacks: see `fit`.
        options: what else `fit` takes.
    """
    rate = optimizer.keywords["lr"]
    there = resume and checkpoint is not None and distributed.from_main(Path(checkpoint).exists())
    spent = 0.0
    for expert, share in () if there else zip(model.experts, rates, strict=False):
        own = partial(optimizer, lr=share * rate)
        history = fit(expert, train, valid, objective, optimizer=own, **options)
        load_best(expert, history)
        spent += sum(epoch["seconds"] for epoch in history.epochs)

    def count_experts(history: History) -> None:
        if len(history.epochs) == 1:
            history.epochs[0]["seconds"] += spent

    return fit(
        *(model, train, valid, objective),
        optimizer=partial(optimizer, lr=rates[-1] * rate),
        parameters=parameters,
        checkpoint=checkpoint,
        checkpoint_seconds=checkpoint_seconds,
        resume=resume,
        callbacks=[count_experts, *callbacks],
        **options,
    )


def meet_mmbt(
    encoders: str, text: Weights, image: Weights, lr: float | None, recipe: Recipe
) -> Recipe:
    """MMBT (Kiela et al., 2019): its release's example, 5e-5 and three regions.

    Trained weights do not learn in the first epochs: BERT's layers in five, ResNet's in three.
    Its warm-up, step by step, is left out.
    """
    _check_encoders(encoders, "resnet_bert", "vgg_bert")
    _check_order(recipe)
    frozen = {"text": 5 if text else 0, "image": 3 if image else 0}
    return replace(
        recipe,
        build=partial(build_mmbt, text, image),
        optimizer=partial(DECAYED, lr=lr or 5e-5),
        scheduler=partial(ReduceLROnPlateau, mode="max", factor=0.5, patience=2),
        parameters=decayed_but_norms,
        fusion_lr={},
        train=partial(fit, rounds=partial(rounds, **frozen)),
    )


def build_mmbt(
    text_weights: Weights, image_weights: Weights, fusion: Fusion, train: DataLoader
) -> nn.Module:
    """Returns MMBT over three regions of a poster, or over its features as one."""
    data = train.dataset
    text = BertEncoder(text_weights, vocabulary=len(data.tokens))
    if data.images is None or data.images.dtype == np.uint8:
        image: nn.Module = ImageRegions(ResNetEncoder(image_weights))
        width = image.dim
    else:
        image, width = nn.Identity(), data.images.shape[1]
    return MMBT(text, image, width, len(data.films.genres))


def decayed_but_norms(model: nn.Module) -> list[dict[str, Any]]:
    """Returns BERT's usual groups: biases and layer normalisations go without weight decay."""
    groups: tuple[list, list] = [], []
    for name, parameter in model.named_parameters():
        groups["bias" in name or "LayerNorm" in name].append(parameter)
    return [{"params": groups[0]}, {"params": groups[1], "weight_decay": 0.0}]


def meet_pmf(
    encoders: str, text: Weights, vit: Weights, size: int, lr: float | None, recipe: Recipe
) -> Recipe:
    """PMF (Li et al., 2023), with the sizes of its release, which holds no training.

    So its rate, 1e-3, is of our choice; the batches and the schedule are the recipe's.
    """
    _check_encoders(encoders, "resnet_bert")
    _check_order(recipe)
    return replace(
        recipe,
        build=partial(build_pmf, text, vit, size),
        optimizer=partial(DECAYED, lr=lr or 1e-3),
        parameters=learning,
        fusion_lr={},
    )


def build_pmf(
    text_weights: Weights,
    vit_weights: Weights,
    size: int,
    fusion: Fusion,
    train: DataLoader,
) -> nn.Module:
    """Returns PMF over BERT and ViT; without weights they have four layers."""
    data = train.dataset
    text = BertEncoder(text_weights, vocabulary=len(data.tokens), layers=4, pooled=False)
    return PMF(text, ViTEncoder(vit_weights, size=size), len(data.films.genres))


def learning(model: nn.Module) -> list[dict[str, Any]]:
    """Returns one group of the parameters that learn."""
    return [{"params": [p for p in model.parameters() if p.requires_grad]}]


def _check_encoders(chosen: str, *able: str) -> None:
    if chosen not in able:
        raise ValueError(f"needs encoders={' or '.join(able)}, and they are {chosen}")


def _check_order(recipe: Recipe) -> None:
    if tuple(recipe.modalities) != ORDER:
        raise ValueError(
            f"takes {' and '.join(ORDER)} in this order, and they are "
            f"{', '.join(recipe.modalities)}; leave out --modalities"
        )
