"""Noise that recipes name: each kind of features as it is, and every recipe's modalities."""

import numpy as np
import pytest
import torch

from deq_fusion.examples import noise
from deq_fusion.examples.affect import cm_bert
from deq_fusion.examples.brca.recipe import recipe as brca
from deq_fusion.examples.digits.recipe import recipe as digits
from deq_fusion.examples.imdb.recipe import ROWS
from deq_fusion.examples.imdb.recipe import recipe as imdb
from deq_fusion.examples.synthetic.recipe import recipe as synthetic
from deq_fusion.own_data import own_data


def rng():
    return np.random.default_rng(0)


def test_vectors_lose_entries_and_have_them_exchanged():
    x = torch.randn(300, 40) + 9
    noisy = noise.vectors(x, 0.3, rng())
    lost = noisy == 0
    assert abs(lost.double().mean() - 0.3) < 5 * (0.21 / lost.numel()) ** 0.5
    for row, before in zip(noisy, x, strict=True):
        assert set(row[row != 0].tolist()) <= set(before.tolist())
    assert (noisy[~lost] != x[~lost]).any() and noisy.dtype == torch.float32
    regions = x.reshape(100, 3, 40)
    assert torch.equal(noise.vectors(regions, 0.3, rng()), noisy.reshape(100, 3, 40))


def test_sequences_keep_their_padding():
    x = torch.randn(50, 9, 4)
    x[:, 6:] = 0
    noisy = noise.sequences(x, 0.4, rng())
    assert not noisy[:, 6:].any() and noisy.dtype == torch.float32
    steps = (noisy[:, :6] == 0).all(2).double().mean()
    assert abs(steps - 0.4 - 0.6 * 0.4**4) < 5 * (0.24 / 300) ** 0.5
    kept = (noisy != 0).double()[:, :6].mean()
    assert abs(kept - 0.36) < 5 * (0.23 / 1200 * 4) ** 0.5
    assert torch.equal(noise.vectors_or_sequences(x, 0.4, rng()), noisy)
    flat = torch.randn(5, 4)
    assert torch.equal(
        noise.vectors_or_sequences(flat, 0.4, rng()), noise.vectors(flat, 0.4, rng())
    )


def test_tokens_are_exchanged_for_others_and_padding_stays():
    x = torch.randint(1, 30, (200, 12))
    x[:, 9:] = 0
    changed = []
    for level in (0.3, 0.8):
        noisy = noise.tokens(x, level, rng())
        assert noisy.dtype == x.dtype and not noisy[:, 9:].any() and noisy[:, :9].all()
        changed.append((noisy != x)[:, :9])
        expected = level * 28 / 29  # a word may be drawn in its own place
        assert abs(changed[-1].double().mean() - expected) < 0.03
    assert (changed[1] | ~changed[0]).all()
    empty = torch.zeros(2, 3, dtype=torch.int64)
    assert torch.equal(noise.tokens(empty, 1, rng()), empty)


def test_images_are_noised_as_pictures():
    pytest.importorskip("PIL", reason="needs Pillow")
    x = torch.randint(0, 256, (4, 3, 16, 20), dtype=torch.uint8)
    noisy = noise.images(x, 0.6, rng())
    assert noisy.shape == x.shape and noisy.dtype == torch.uint8 and (noisy != x).any()


@pytest.mark.parametrize(
    "kind", [noise.vectors, noise.sequences, noise.tokens, noise.vectors_or_sequences]
)
def test_what_is_passed_stays_and_the_generator_alone_decides(kind):
    x = torch.randint(1, 9, (6, 5)) if kind is noise.tokens else torch.randn(6, 5, 3)
    before = x.clone()
    first, again = (kind(x, 0.5, rng()) for _ in range(2))
    assert torch.equal(x, before) and torch.equal(first, again) and not torch.equal(first, x)


def test_recipes_have_a_noise_for_every_modality(tmp_path):
    tables = {"a": rng().normal(size=(60, 3)), "b": rng().normal(size=(60, 4, 2))}
    own = own_data(tables, np.arange(60) % 2).recipe
    films = [imdb(tmp_path, encoders=encoders) for encoders in ROWS]
    for made in (digits(), brca(tmp_path), synthetic(train=8), own, *films):
        assert set(made.noise) == set(made.modalities)
        assert "noise" not in made.shared_settings()
    options = {"text_weights": None, "patience": None, "fusion_lr": 1e-3}
    fields = cm_bert.fields("cm_bert", tmp_path / cm_bert.UTTERANCES, **options)
    assert set(fields["noise"]) == set(fields["modalities"])
