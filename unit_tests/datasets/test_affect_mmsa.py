"""MMSA's pickles: masks from lengths or from BERT's mask, scaling on train only, clear errors."""

import pickle

import numpy as np
import pytest
import torch

from deq_fusion.datasets.affect.mmsa import get_dataloader, read_parts
from deq_fusion.datasets.affect.sequences import summarise

COUNTS = {"train": 9, "valid": 4, "test": 5}
WIDTHS = {"text": 6, "audio": 5, "vision": 4}
STEPS = {"text": 5, "audio": 8, "vision": 10}


def length_of(part, key, row):
    return 1 + (row + len(key) + len(part)) % STEPS[key]


def make(aligned):
    rng = np.random.default_rng(1)
    data = {}
    for part, count in COUNTS.items():
        steps = {key: STEPS["text"] if aligned else STEPS[key] for key in WIDTHS}
        ends = {
            key: [length_of(part, "text" if aligned else key, row) for row in range(count)]
            for key in WIDTHS
        }
        arrays = {
            key: rng.normal(1, 2, (count, steps[key], width)).astype(np.float32)
            for key, width in WIDTHS.items()
        }
        mask = np.arange(STEPS["text"]) < np.array(ends["text"])[:, None]
        arrays["text_bert"] = np.stack([mask * 101, mask, 0 * mask], axis=1).astype(np.float64)
        if not aligned:
            arrays["audio_lengths"], arrays["vision_lengths"] = ends["audio"], ends["vision"]
        for key in ("audio", "vision"):
            for row, end in enumerate(ends[key]):
                arrays[key][row, end:] = 0  # text has values behind its mask
        arrays["regression_labels"] = rng.uniform(-3, 3, count).astype(np.float32)
        arrays["classification_labels"] = np.sign(arrays["regression_labels"])
        arrays["id"] = [f"{part}video_$_{row}" for row in range(count)]
        arrays["raw_text"] = np.array([f"words of {row}" for row in range(count)])
        arrays["annotations"] = ["Negative"] * count
        data[part] = arrays
    return data


@pytest.fixture
def write(tmp_path):
    def write(content):
        path = tmp_path / "unaligned_50.pkl"
        path.write_bytes(pickle.dumps(content))
        return path

    return write


@pytest.mark.parametrize("aligned", [False, True])
@pytest.mark.parametrize("steps", [None, 3, 12])
def test_batches_have_views_and_masks(write, aligned, steps):
    data = make(aligned)
    torch.manual_seed(0)
    loaders = get_dataloader(write(data), batch_size=4, steps=steps)
    for loader, (part, arrays) in zip(loaders, data.items(), strict=True):
        rows = {float(label): row for row, label in enumerate(arrays["regression_labels"])}
        served = []
        for views, masks, labels in loader:
            assert labels.shape == (len(labels), 1) and labels.dtype == torch.float32
            for key, view, mask in zip(WIDTHS, views, masks, strict=True):
                order = [rows[label] for label in labels[:, 0].tolist()]
                ends = [length_of(part, "text" if aligned else key, row) for row in order]
                ends = ends if steps is None else [min(end, steps) for end in ends]
                assert view.shape[1] == (max(ends) if steps is None else steps)
                assert mask.dtype == torch.bool and mask.sum(1).tolist() == ends
                for got, kept, row, end in zip(view, mask, order, ends, strict=True):
                    np.testing.assert_array_equal(got[:end], arrays[key][row, :end])
                    assert kept[:end].all() and not got[end:].any()
            served += order
        assert sorted(served) == list(range(COUNTS[part]))
        assert (served == sorted(served)) == (part != "train")  # train alone is shuffled


def test_the_scale_is_fitted_on_trains_unmasked_steps(write):
    data = make(False)
    arrays = data["train"]
    first = read_scaled(write(data))
    for index, key in enumerate(WIDTHS):
        ends = [length_of("train", key, row) for row in range(COUNTS["train"])]
        steps = np.concatenate([arrays[key][row, :end] for row, end in enumerate(ends)])
        test_end = length_of("test", key, 0)
        expected = (data["test"][key][0, :test_end] - steps.mean(axis=0)) / steps.std(axis=0)
        np.testing.assert_allclose(first[2][index][0, :test_end], expected, atol=1e-4)
        assert not first[2][index][0, test_end:].any()
    for part in ("valid", "test"):
        for key in WIDTHS:
            data[part][key] *= 50
    for before, after in zip(first[0], read_scaled(write(data))[0], strict=True):
        np.testing.assert_array_equal(before, after)


def read_scaled(path):
    torch.manual_seed(5)  # train's order
    loaders = get_dataloader(path, batch_size=None, scale=True)
    return [[view.numpy() for view in next(iter(loader))[0]] for loader in loaders]


def test_modalities_ids_transcripts_and_summary(write):
    parts = read_parts(write(make(False)), modalities=["vision", "text"])
    assert list(parts["train"].views) == ["vision", "text"]
    assert parts["valid"].ids[2] == "validvideo_$_2" and parts["test"].texts[1] == "words of 1"
    summary = summarise(parts)
    assert [summary[part]["samples"] for part in COUNTS] == list(COUNTS.values())
    assert summary["train"]["features"] == {"vision": 4, "text": 6}


def test_a_length_of_zero_is_an_absent_modality_and_a_long_one_is_cut(write):
    data = make(False)
    data["valid"]["audio_lengths"][1], data["valid"]["audio_lengths"][2] = 0, 400
    view = read_parts(write(data))["valid"].views["audio"]
    assert view.present.tolist() == [True, False, True, True]
    assert not view.mask()[1].any() and not view.values[1].any() and view.mask()[2].all()


def test_minus_infinity_in_audio_becomes_zero_and_nothing_else_does(write):
    data = make(False)
    data["train"]["audio"][3, 0, 1] = -np.inf
    assert read_parts(write(data))["train"].views["audio"].values[3, 0, 1] == 0
    for key, value in (("audio", np.nan), ("text", -np.inf)):
        wrong = make(False)
        wrong["test"][key][2, 0, 0] = value
        with pytest.raises(ValueError, match=rf"{key} of test .* finite, but row 2 is not"):
            read_parts(write(wrong))


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (lambda a: a.pop("vision"), r"test in .*\['vision'\] are missing"),
        (lambda a: a.pop("text_bert"), r"text_bert of test .* \(5, 3, 5\).* got \(0,\)"),
        (lambda a: a["text_bert"][3, 1].__setitem__(0, 0), "ones and then zeros, but row 3"),
        (lambda a: a["text_bert"][3, 1].__setitem__(0, 7), "ones and then zeros, but row 3"),
        (lambda a: a.update(audio_lengths=[1, 2]), "audio_lengths of test .* 5 whole numbers"),
        (lambda a: a.update(vision_lengths=[1, 2, 3, 4, -1]), "vision_lengths of test .* >= 0"),
        (lambda a: a.update(audio=a["audio"][1:]), r"audio of test .* \(5, steps, features\)"),
        (lambda a: a["regression_labels"].fill(4), r"regression_labels of test .* \[-3, 3\]"),
        (lambda a: a["id"].__setitem__(0, "trainvideo_$_4"), "row 0 of test has .* also in train"),
        (lambda a: a["id"].pop(), "id of test .* each of the 5 labels"),
    ],
)
def test_a_wrong_file_is_named(write, change, match):
    data = make(False)
    change(data["test"])
    with pytest.raises(ValueError, match=match) as error:
        get_dataloader(write(data))
    assert "unaligned_50.pkl" in str(error.value)


def test_other_bounds_and_names(write, tmp_path):
    data = make(False)
    with pytest.raises(ValueError, match=r"must lie in \[-1, 1\], but row"):
        read_parts(write(data), bound=1)
    with pytest.raises(ValueError, match=r"out of \['text', 'audio', 'vision'\]"):
        read_parts(write(data), modalities=["text", "text"])
    with pytest.raises(FileNotFoundError, match="no file .*; it comes from .*thuiar/MMSA"):
        get_dataloader(tmp_path / "aligned_50.pkl")
