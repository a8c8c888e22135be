"""Noisy test sets of the adapters: names and levels, noise where it belongs, and nowhere else."""

import pickle

import h5py
import numpy as np
import pytest
import torch

from deq_fusion.datasets import noise
from deq_fusion.datasets.affect import get_data as affect
from deq_fusion.datasets.affect.words import read_words
from deq_fusion.datasets.imdb import get_data as imdb

SAMPLES, STEPS = 12, 8
WIDTHS = {"vision": 3, "audio": 4, "text": 5}
WORDS = ("I", "really", "liked", "it", "because", "of", "what's", "there")
KEYS = {"text": "text", "audio": "audio", "vision": "image"}
ORDER = ("vision", "audio", "text")


@pytest.fixture
def mosi(tmp_path):
    """A file whose samples have 1 to 8 words, one without audio, and its words in two forms."""
    rng = np.random.default_rng(0)
    data, said = {}, {}
    for part, count in (("train", 6), ("valid", 4), ("test", SAMPLES)):
        arrays = {key: np.zeros((count, STEPS, width)) for key, width in WIDTHS.items()}
        for row in range(count):
            length = 1 + row % STEPS
            for key, width in WIDTHS.items():
                arrays[key][row, STEPS - length :] = rng.normal(2, 3, (length, width))
            said[f"{part}[{row}]"] = list(WORDS[:length])
        arrays["audio"][3] = 0
        arrays["labels"] = rng.uniform(-3, 3, (count, 1, 1))
        arrays["id"] = np.array([f"{part}[{row}]" for row in range(count)])
        data[part] = arrays
    (tmp_path / "mosi_raw.pkl").write_bytes(pickle.dumps(data))
    (tmp_path / "words.pkl").write_bytes(pickle.dumps(said))
    with h5py.File(tmp_path / "words.hdf5", "w") as file:
        for name, words in said.items():
            column = np.array([[b"sp"], *([word.encode()] for word in words)])
            file[f"words/{name}/features"] = column
    return tmp_path


def load(folder, **options):
    options = {"num_workers": 0, "robust_test": True, "batch_size": 5} | options
    if options["robust_test"]:
        options = {"raw_path": folder / "words.pkl"} | options
    return affect.get_dataloader(folder / "mosi_raw.pkl", **options)


def whole(loader):
    """The views of all samples of loaders with max_pad, in `ORDER`, and the labels."""
    return [torch.cat(parts) for parts in zip(*loader, strict=True)]


def test_keys_and_levels_are_those_of_multibenchs_curves(mosi):
    *_, test = load(mosi)
    assert list(test) == ["image", "audio", "text", "multimodal"]
    assert [len(loaders) for loaders in test.values()] == [10] * 4
    clean = list(load(mosi, robust_test=False)[2])
    for loaders in test.values():
        for got, batch in zip(loaders[0], clean, strict=True):
            for a, b in zip([*got[0], *got[1], *got[2:]], [*batch[0], *batch[1], *batch[2:]],
                            strict=True):  # fmt: skip
                assert torch.equal(a, b)


def test_noise_is_in_its_modality_within_each_sample_and_along_its_steps(mosi):
    *clean, labels = whole(load(mosi, robust_test=False, max_pad=True, max_seq_len=STEPS)[2])
    *_, test = load(mosi, max_pad=True, max_seq_len=STEPS, text_noise="features")
    there = torch.arange(STEPS) < torch.tensor([1 + row % STEPS for row in range(SAMPLES)])[:, None]
    for place, name in enumerate(ORDER):
        for level in (3, 9):
            *views, truth = whole(test[KEYS[name]][level])
            assert torch.equal(truth, labels)
            mask = there.clone()
            if name == "audio":
                mask[3] = False  # absent, and stays so
            for i, (view, before) in enumerate(zip(views, clean, strict=True)):
                changed = (view != before).any(2)
                assert torch.equal(changed, mask if i == place else torch.zeros_like(mask))
            varied = (views[place] - clean[place])[7]  # the longest sample
            assert varied.std(0).min() > 0 and len(varied.unique()) > STEPS


def test_the_noise_has_its_deviation_and_its_share_of_lost_steps():
    values = np.full((4000, 6), 7.0, dtype=np.float32)
    noisy = noise.disturb_steps(values, 0.3, np.random.default_rng(0))
    lost = (noisy == 0).all(1)
    assert ((noisy == 0).any(1) == lost).all() and noisy.dtype == np.float32
    assert abs(lost.mean() - 0.3) < 5 * (0.21 / 4000) ** 0.5
    kept = noisy[~lost] - 7
    assert abs(kept.std() - 0.3) < 5 * 0.3 / (2 * kept.size) ** 0.5
    assert abs(kept.mean()) < 5 * 0.3 / kept.size**0.5
    entries = noise.lose_entries(values, 0.3, np.random.default_rng(0)) == 0
    assert abs(entries.mean() - 0.3) < 5 * (0.21 / entries.size) ** 0.5


@pytest.mark.parametrize("file", ["words.pkl", "words.hdf5"])
def test_words_of_five_letters_or_more_lose_their_vectors(mosi, file):
    *_, test = load(mosi, raw_path=mosi / file, max_pad=True, max_seq_len=STEPS)
    clean = whole(test["text"][0])[2]
    long = torch.tensor([len(word.rstrip("'")) >= 5 for word in WORDS])
    counts, before = [], torch.zeros(SAMPLES, STEPS, dtype=torch.bool)
    for level in (3, 6, 9):
        text = whole(test["text"][level])[2]
        spoilt = ~text.any(2) & clean.any(2)
        assert torch.equal(text[~spoilt], clean[~spoilt]) and not spoilt[:, ~long].any()
        assert (spoilt | ~before).all()  # what is spoilt stays spoilt
        before = spoilt
        counts.append(int(spoilt.sum()))
    slips = int((clean.any(2) & long).sum())
    assert 0 < counts[0] < counts[1] < counts[2] <= slips
    assert abs(counts[1] / slips - 0.6) < 4 * (0.24 / slips) ** 0.5


def test_words_are_those_of_the_last_steps_where_the_first_have_no_vector(mosi):
    data = pickle.loads((mosi / "mosi_raw.pkl").read_bytes())
    data["test"]["text"][7, :2] = 0  # "I really" without vectors: the sample begins at "liked"
    (mosi / "mosi_raw.pkl").write_bytes(pickle.dumps(data))
    *_, test = load(mosi, max_pad=True, max_seq_len=STEPS)
    clean, text = (whole(test["text"][level])[2][7] for level in (0, 9))
    spoilt = {WORDS[2:][i] for i in range(6) if clean[i].any() and not text[i].any()}
    assert spoilt and spoilt <= {"liked", "because", "what's", "there"}


def test_the_noise_of_a_sample_depends_on_neither_batch_nor_order(mosi):
    one, other = (load(mosi, batch_size=size)[2]["multimodal"][9] for size in (1, SAMPLES))
    ((views, _, rows, _),) = list(other)
    for batch, row in zip(one, range(SAMPLES), strict=True):
        assert batch[2].item() == row == rows[row].item()
        for view, all_of_them in zip(batch[0], views, strict=True):
            assert torch.equal(view[0], all_of_them[row, : view.shape[1]])
    first, again, seeded = (next(iter(load(mosi, seed=s)[2]["image"][5]))[0] for s in (0, 0, 1))
    assert torch.equal(first[0], again[0]) and not torch.equal(first[0], seeded[0])


def test_noise_of_ones_own_and_what_is_done_after_it(mosi):
    def shift(steps, level, generator):
        return steps + 10 * level

    options = {"max_pad": True, "max_seq_len": STEPS, "noise": shift, "text_noise": "features"}
    *_, test = load(mosi, **options)
    clean = whole(test["image"][0])[0]
    shifted = whole(test["image"][5])[0] - clean
    assert set(shifted.round(decimals=4).unique().tolist()) == {0.0, 5.0}
    third = whole(test["multimodal"][6])[0] - clean
    assert third.max().item() == pytest.approx(2, abs=1e-4)
    *_, normed = load(mosi, z_norm=True, **options)  # after it: a shift does not matter
    torch.testing.assert_close(*(whole(normed["image"][level])[0] for level in (0, 5)))


def test_words_that_are_not_there_are_told(mosi):
    with pytest.raises(ValueError, match="raw_path names none; name CMU's file of words"):
        load(mosi, raw_path=None)
    assert load(mosi, raw_path=None, modalities=["vision", "audio"])[2].keys() == {
        *("image", "audio", "multimodal")
    }
    (mosi / "few.pkl").write_bytes(pickle.dumps({"test[0]": ["I"]}))
    with pytest.warns(UserWarning, match="no words for 11 of 12 samples"):
        *_, test = load(mosi, raw_path=mosi / "few.pkl")
    (mosi / "other.pkl").write_bytes(pickle.dumps({"x": ["I"]}))
    with pytest.raises(ValueError, match="has those of none"):
        load(mosi, raw_path=mosi / "other.pkl")
    (mosi / "numbers.pkl").write_bytes(pickle.dumps({"test[0]": [1]}))
    with pytest.raises(ValueError, match="must have words for"):
        read_words(mosi / "numbers.pkl", ["test[0]"])
    (mosi / "short.pkl").write_bytes(pickle.dumps({f"test[{i}]": ["I"] for i in range(12)}))
    with pytest.raises(ValueError, match="sample 1 of test has 2 steps and 1 words"):
        load(mosi, raw_path=mosi / "short.pkl")


# ---- films

FILMS = 7


@pytest.fixture
def films(tmp_path):
    rng = np.random.default_rng(0)
    with h5py.File(tmp_path / imdb.FILE, "w") as file:
        file["features"] = rng.normal(size=(20, 50)).astype(np.float32)
        file["vgg_features"] = rng.random((20, 60)).astype(np.float32) + 1
        file["genres"] = np.ones((20, 3), dtype=np.int32)
    return tmp_path


def noisy_films(folder, *args, **options):
    options = {"splits": (9, 4, FILMS), "no_robust": False} | options
    return imdb.get_dataloader(folder, *args, **options)[2]


def test_films_have_eleven_levels_of_each_modality_the_other_clean(films):
    test = noisy_films(films)
    assert {name: len(loaders) for name, loaders in test.items()} == {"text": 11, "image": 11}
    text, image, genres = whole(noisy_films(films, no_robust=True))
    for name, place in (("text", 0), ("image", 1)):
        for level in range(11):
            got = whole(test[name][level])
            assert torch.equal(got[1 - place], (text, image)[1 - place])
            assert torch.equal(got[2], genres)
            lost, clean = got[place] == 0, (text, image)[place]
            assert torch.equal(got[place][~lost], clean[~lost])
            p = level / 10
            assert abs(lost.double().mean() - p) <= 5 * (p * (1 - p) / lost.numel()) ** 0.5
    assert torch.equal(whole(test["text"][0])[0], text) and not whole(test["text"][10])[0].any()


def test_batches_of_films_do_not_matter_and_a_call_written_for_multibench_is_noisy(films):
    small, large = (noisy_films(films, batch_size=size)["image"][5] for size in (2, 100))
    assert torch.equal(whole(small)[1], whole(large)[1])
    test = imdb.get_dataloader(films, "raw", vgg=True, splits=(9, 4, FILMS))[2]
    assert torch.equal(whole(test["image"][5])[1], whole(large)[1])
    assert list(noisy_films(films, modalities=["image"])) == ["image"]


def test_features_that_multibench_has_kept_are_read(films):
    kept = np.random.default_rng(1).random((11, FILMS, 60))
    for level in range(11):
        np.save(films / f"vgg_features_{level}.npy", kept[level])
    options = {"skip_process": True, "modalities": ["image"]}
    test = noisy_films(films, films, **options)
    for level in range(11):
        assert torch.equal(whole(test["image"][level])[0], torch.tensor(kept[level]).float())
    np.save(films / "vgg_features_10.npy", kept[0, :3])
    with pytest.raises(ValueError, match=r"must be \(7, 60\), a row for each film of test, got"):
        noisy_films(films, films, **options)
    np.save(films / "vgg_features_10.npy", np.array([object()]))
    with pytest.raises(ValueError, match="must be a whole array of numbers"):
        noisy_films(films, films, **options)
    with pytest.raises(FileNotFoundError, match="text_features_0.npy"):
        noisy_films(films, films, skip_process=True)
