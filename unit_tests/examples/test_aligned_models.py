"""MFM and MCTN in comparisons: on vectors and sequences, by their own training, and refused."""

import pickle
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch.utils.data import DataLoader, TensorDataset

from deq_fusion.datasets.affect.utterance import FILE
from deq_fusion.datasets.synthetic.sequences import get_dataloader
from deq_fusion.examples.affect.recipe import recipe as mosi
from deq_fusion.examples.aligned_models import MODELS, sizes
from deq_fusion.examples.paradigms.systems import paradigms
from deq_fusion.examples.synthetic.recipe import recipe as synthetic
from deq_fusion.training_structures.comparison.methods import SYSTEM, gather
from deq_fusion.training_structures.comparison.single_run import run_fusion

WIDTHS = {"text": 4, "audio": 3, "vision": 2}
param = pytest.mark.parametrize


@pytest.fixture
def vectors(tmp_path):
    """24 utterances of 12 videos, 3 of them test's; the text tells their labels."""
    rng = np.random.default_rng(0)
    videos = np.repeat(np.arange(12), 2)
    views = {name: rng.normal(size=(24, width)).astype("f4") for name, width in WIDTHS.items()}
    names = {"id": np.arange(24).astype(str), "video_id": videos.astype(str)}
    parts = {
        "labels": views["text"][:, 0].clip(-3, 3),
        "split": np.where(videos < 3, "test", "train"),
    }
    np.savez(tmp_path / FILE, **views, **names, **parts)
    return tmp_path


@pytest.fixture
def sequences(tmp_path):
    """MultiBench's layout: aligned, padded on the left, and some without audio or text."""
    rng, parts = np.random.default_rng(0), {}
    for part, rows in (("train", 12), ("valid", 6), ("test", 6)):
        views = {}
        for name, width in WIDTHS.items():
            views[name] = rng.normal(size=(rows, 4, width)).astype("f4")
            for row in range(rows):
                views[name][row, : row % 4] = 0
        views["audio"][0] = views["text"][1] = 0
        labels = rng.uniform(-3, 3, (rows, 1, 1)).astype("f4")
        parts[part] = views | {"labels": labels, "id": [f"{part}_{row}" for row in range(rows)]}
    (tmp_path / "mosi_raw.pkl").write_bytes(pickle.dumps(parts))
    return tmp_path


def trained(recipe, **options):
    models = {name: model.shortened(2) for name, model in MODELS.items()}
    methods, reasons = gather(replace(recipe, floors={}), models, unimodal=False)
    assert not reasons and {method.kind for method in methods} == {SYSTEM}
    return {method.name: run_fusion(method, 3, **options) for method in methods}


def test_vectors_by_the_protocol(vectors):
    recipe = mosi(vectors)
    assert set(recipe.systems) == {*MODELS, *paradigms()}
    first, again = (trained(recipe, drop_modality=True) for _ in range(2))
    for name in MODELS:
        assert first[name]["epochs"] == 2
        assert first[name]["scores"] == again[name]["scores"]
    scores, missing = first["mctn"]["scores"], first["mctn"]["missing"]
    assert missing == {"audio": scores, "vision": scores}  # without text there is none
    scores, missing = first["mfm"]["scores"], first["mfm"]["missing"]
    assert set(missing) == set(WIDTHS)
    assert all(found["mae"] != scores["mae"] for found in missing.values())


def test_sequences_with_masks_by_the_protocol(sequences):
    found = trained(mosi(sequences))
    assert all(np.isfinite(found[name]["scores"]["mae"]) for name in MODELS)


def test_synthetic_sequences():
    recipe = synthetic(steps=3)
    assert set(recipe.systems) == set(MODELS)
    sets = partial(get_dataloader, sizes=(20, 10, 10), steps=3)
    recipe = replace(recipe, load=lambda run, modalities: sets(modalities=modalities))
    found = trained(recipe, drop_modality=True)
    assert all(np.isfinite(result["scores"]["mse"]) for result in found.values())
    assert list(found["mctn"]["missing"]) == ["audio", "video"]


@param("modalities", [["text", "audio"], ["vision", "audio", "text"]])
def test_the_text_is_translated_into_what_is_seen_first(vectors, modalities):
    recipe = mosi(vectors).restricted(modalities)
    met = MODELS["mctn"].meet(recipe)
    model = met.build(None, met.loaders(0)[0])
    order = [modalities[m] for m in model.order]
    assert order == [name for name in ("text", "vision", "audio") if name in modalities]
    assert model.input_dims == tuple(WIDTHS[name] for name in modalities)


def test_they_are_refused_with_a_reason(vectors):
    recipe = mosi(vectors)
    _, reasons = gather(recipe.restricted(["audio", "vision"]), MODELS, unimodal=False)
    assert list(reasons) == ["mctn"] and "from text, and there is none" in reasons["mctn"]
    _, reasons = gather(recipe.restricted(["text"]), MODELS, unimodal=False)
    assert set(reasons) == set(MODELS)
    assert all("takes 2 or more modalities" in reason for reason in reasons.values())


def loader(truth, *shapes):
    views = [torch.randn(len(truth), *shape) for shape in shapes]
    return DataLoader(TensorDataset(*views, truth), batch_size=4)


@param(
    "task, truth, outputs",
    [
        ("regression", torch.randn(8, 1), 1),
        ("regression", torch.randn(8), 1),
        ("classification", torch.tensor([0, 2, 1, 0, 1, 2, 0, 1]), 3),
        ("multilabel", torch.ones(8, 5), 5),
    ],
)
def test_every_task_has_outputs(vectors, task, truth, outputs):
    train = loader(truth, (3, 4), (3, 2))
    assert sizes(task, train) == ([4, 2], outputs)
    recipe = replace(mosi(vectors), modalities=("text", "audio"), task=task)
    for model in MODELS.values():
        made = model.meet(recipe).build(None, train)
        *views, labels = next(iter(train))
        assert made(views).shape == (4, outputs)
        if task == "classification":
            F.cross_entropy(made(views), labels).backward()


def test_sequences_that_are_not_aligned_are_refused():
    with pytest.raises(ValueError, match=r"aligned.*\(8, 3\), \(8, 5\)"):
        sizes("regression", loader(torch.randn(8, 1), (3, 4), (5, 2)))


@param("select, mode", [("loss", "min"), ("corr", "max")])
def test_the_rate_of_mfm_falls_where_validation_stands_still(vectors, select, mode):
    met = MODELS["mfm"].meet(replace(mosi(vectors), select=select))
    optimizer = met.optimizer([torch.nn.Parameter(torch.zeros(1))])
    assert met.scheduler(optimizer).mode == mode and met.select == select
