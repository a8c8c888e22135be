"""MultiBench's pickle: its batches, against plain loops over the samples; masks, scaling fitted
on train only, nothing dropped or changed, errors that name part and row."""

import copy
import os
import pickle

import numpy as np
import pytest
import torch

from deq_fusion.datasets.affect.get_data import get_dataloader, read_parts
from deq_fusion.datasets.affect.sequences import BLOCK, Part, cut_after, standardise, summarise

WIDTHS = {"vision": 3, "audio": 4, "text": 5}
COUNTS = {"train": 11, "valid": 4, "test": 6}
STEPS = 7


@pytest.fixture
def data():
    """Sequences of 1 to 7 words behind zeros; sample 2 of each part has no text, 3 no audio."""
    rng = np.random.default_rng(0)
    data = {}
    for part, count in COUNTS.items():
        arrays = {key: np.zeros((count, STEPS, width)) for key, width in WIDTHS.items()}
        for row in range(count):
            words = 1 + (row + len(part)) % STEPS
            for key, width in WIDTHS.items():
                arrays[key][row, STEPS - words :] = rng.normal(2, 3, (words, width))
        arrays["vision"][:, -1, 0] = 0  # a feature may be 0 where there is a word
        arrays["text"][2], arrays["audio"][3] = 0, 0
        arrays["vision"][1, :2] = 9  # before the first word: MultiBench cuts it
        arrays["labels"] = rng.uniform(-3, 3, (count, 1, 1))
        arrays["labels"][1] = 0
        arrays["id"] = np.array([f"{part}[{row}]" for row in range(count)])
        data[part] = arrays
    return data


@pytest.fixture
def write(tmp_path, data):
    def write(content=None):
        path = tmp_path / "mosi_raw.pkl"
        path.write_bytes(pickle.dumps(data if content is None else content))
        return path

    return write


def samples_of(arrays):
    """Every sample's [vision, audio, text] without what comes before it, a sample at a time."""
    for row in range(len(arrays["labels"])):
        views = [np.float32(arrays[key][row]) for key in WIDTHS]
        first = next((t for t in range(STEPS) if (views[2][t] != 0).any()), None)
        if first is None:
            first = next(t for t in range(STEPS) if any((view[t] != 0).any() for view in views))
        yield [view[first:] for view in views]


def load(path, **options):
    return get_dataloader(path, num_workers=0, train_shuffle=False, **options)


def test_batches_are_padded_to_the_longest_with_lengths(write, data):
    for loader, part in zip(load(write(), batch_size=4), COUNTS, strict=True):
        samples, seen = list(samples_of(data[part])), 0
        for batch in loader:
            assert len(batch) == 4
            views, lengths, rows, labels = batch
            chosen = samples[seen : seen + len(labels)]
            for index, (view, length) in enumerate(zip(views, lengths, strict=True)):
                ends = [len(sample[index]) for sample in chosen]
                assert length.tolist() == ends and length.dtype == torch.int64
                assert view.shape == (len(ends), max(ends), list(WIDTHS.values())[index])
                assert view.dtype == torch.float32
                for got, sample, end in zip(view, chosen, ends, strict=True):
                    np.testing.assert_array_equal(got[:end], sample[index])
                    assert not got[end:].any()
            assert rows.tolist() == [[seen + i] for i in range(len(labels))]
            assert labels.dtype == torch.float32 and labels.shape == (len(chosen), 1)
            expected = data[part]["labels"][seen : seen + len(labels), 0]
            np.testing.assert_array_equal(labels, np.float32(expected))
            seen += len(labels)
        assert seen == COUNTS[part]  # no sample was dropped


@pytest.mark.parametrize("length", [4, 10])
def test_batches_of_max_pad_have_its_steps(write, data, length):
    for loader, part in zip(
        load(write(), batch_size=None, max_pad=True, max_seq_len=length), COUNTS, strict=True
    ):
        (batch,) = loader
        assert len(batch) == 4 and batch[3].shape == (COUNTS[part], 1)
        for row, sample in enumerate(samples_of(data[part])):
            for view, sequence in zip(batch[:3], sample, strict=True):
                expected = np.zeros((length, sequence.shape[1]), np.float32)
                end = min(length, len(sequence))
                expected[:end] = sequence[:end]
                np.testing.assert_array_equal(view[row], expected)


@pytest.mark.parametrize("options", [{}, {"max_pad": True, "max_seq_len": 5}])
def test_masks_mark_what_is_neither_padding_nor_absent(write, data, options):
    for loader, part in zip(
        load(write(), batch_size=None, masks=True, **options), COUNTS, strict=True
    ):
        ((views, masks, labels),) = loader
        assert len(views) == len(masks) == 3 and labels.shape == (COUNTS[part], 1)
        for row, sample in enumerate(samples_of(data[part])):
            for view, mask, sequence in zip(views, masks, sample, strict=True):
                assert mask.shape == view.shape[:2] and mask.dtype == torch.bool
                expected = [t < len(sequence) and sequence.any() for t in range(mask.shape[1])]
                assert mask[row].tolist() == expected
        assert not masks[2][2].any() and not masks[1][3].any() and masks[0][2].any()


def test_drop_empty_leaves_out_what_has_no_text(write, data):
    loaders = load(write(), batch_size=None, drop_empty=True)
    for loader, part in zip(loaders, COUNTS, strict=True):
        ((views, _, rows, labels),) = loader
        kept = [row for row in range(COUNTS[part]) if row != 2]
        np.testing.assert_array_equal(labels, np.float32(data[part]["labels"][kept, 0]))
        assert rows[:, 0].tolist() == list(range(len(kept)))
        assert views[2].any(dim=2).any(dim=1).all()
    parts = read_parts(write(), drop_empty=True)
    assert parts["test"].ids == [f"test[{row}]" for row in range(6) if row != 2]


def test_z_norm_is_each_samples_own(write, data):
    data["train"]["audio"][0, :, 1] = 0.1  # constant: becomes 0
    for loader, part in zip(load(write(), batch_size=None, z_norm=True), COUNTS, strict=True):
        ((views, lengths, _, _),) = loader
        for row, sample in enumerate(samples_of(data[part])):
            for view, length, sequence in zip(views, lengths, sample, strict=True):
                steps = torch.from_numpy(sequence).double()
                expected = torch.zeros_like(steps)
                for feature in range(steps.shape[1]):
                    column = steps[:, feature]
                    if len(set(column.tolist())) > 1:
                        expected[:, feature] = (column - column.mean()) / column.std()
                got = view[row, : length[row]]
                torch.testing.assert_close(got, expected.float(), rtol=1e-4, atol=1e-5)
                assert not view[row, length[row] :].any()


def test_flat_time_series_are_the_sequences_flattened(write, data):
    options = {"flatten_time_series": True, "batch_size": 5}
    for loader, part in zip(load(write(), **options), COUNTS, strict=True):
        samples = list(samples_of(data[part]))
        for views, lengths, rows, _ in loader:
            for index, (view, length) in enumerate(zip(views, lengths, strict=True)):
                assert view.dim() == 2 and view.shape[1] == length.max()
                for got, end, row in zip(view, length, rows[:, 0], strict=True):
                    np.testing.assert_array_equal(got[:end], samples[row][index].ravel())
                    assert not got[end:].any()


@pytest.mark.parametrize(
    ("data_type", "task", "expected", "dtype"),
    [
        ("mosi", None, [-2.0, 0.0, 0.5, 1.0], torch.float32),
        ("mosei", "regression", [-2.0, 0.0, 0.5, 1.0], torch.float32),
        ("mosi", "classification", [0, 0, 1, 1], torch.int64),
        ("sarcasm", "classification", [0, 0, 1, 1], torch.int64),
        ("humor", "classification", [1, 0, 1, 1], torch.int64),
        ("humor", None, [1.0, -1.0, 1.0, 1.0], torch.float32),
        ("sarcasm", "regression", [-1.0, -1.0, 1.0, 1.0], torch.float32),
    ],
)
def test_labels_are_what_task_and_set_say(write, data, data_type, task, expected, dtype):
    written = {"sarcasm": [-1.0, 0.0, 1.0, 1.0], "humor": [1.0, 0.0, 1.0, 1.0]}
    labels = np.array(written.get(data_type, [-2.0, 0.0, 0.5, 1.0]))
    for part, count in COUNTS.items():
        data[part]["labels"] = np.resize(labels, (count, 1, 1))
    for options in ({}, {"max_pad": True}, {"masks": True}):
        loader = load(write(), data_type=data_type, task=task, **options)[1]
        labels = next(iter(loader))[-1]
        assert labels.tolist() == [[label] for label in expected] and labels.dtype == dtype


def test_modalities_come_in_the_order_asked_for(write):
    for modalities in (["text", "vision"], ["audio"]):
        views, lengths, _, _ = next(iter(load(write(), modalities=modalities)[0]))
        assert [view.shape[2] for view in views] == [WIDTHS[key] for key in modalities]
        assert len(lengths) == len(modalities)
        *views, _ = next(iter(load(write(), modalities=modalities, max_pad=True)[0]))
        assert [view.shape[2] for view in views] == [WIDTHS[key] for key in modalities]


def test_minus_infinity_in_audio_becomes_zero_and_nothing_else_does(write, data):
    data["train"]["audio"][0, -1, 2] = -np.inf
    views, *_ = next(iter(load(write(), batch_size=1)[0]))
    assert views[1][0, -1, 2] == 0 and views[1][0, -1, 1] == np.float32(
        data["train"]["audio"][0, -1, 1]
    )
    for key, value in (("audio", np.nan), ("audio", np.inf), ("vision", -np.inf)):
        wrong = copy.deepcopy(data)
        wrong["valid"][key][[1, 3], -1, 0] = value
        with pytest.raises(ValueError, match=rf"{key} of valid .* finite, but rows 1, 3 are not"):
            load(write(wrong))


def test_the_scale_is_fitted_on_trains_steps_only(write, data):
    first = read_scaled(write())
    known = [np.concatenate(steps) for steps in zip(*samples_of(data["train"]), strict=True)]
    for index in range(len(WIDTHS)):
        steps = np.concatenate([s[index] for s in samples_of(data["train"]) if s[index].any()])
        assert index == 0 or len(steps) < len(known[index])  # some have no audio, or no text
        for part in COUNTS:
            for row, sample in enumerate(samples_of(data[part])):
                if sample[index].any():
                    expected = (sample[index] - steps.mean(axis=0)) / steps.std(axis=0)
                    got = first[part][index][row]
                    np.testing.assert_allclose(got[: len(expected)], expected, atol=1e-4)
                    assert not got[len(expected) :].any()
                else:
                    assert not first[part][index][row].any()  # absent stays zero
    for part in ("valid", "test"):
        for key in WIDTHS:
            data[part][key] *= 100
    for before, after in zip(first["train"], read_scaled(write())["train"], strict=True):
        np.testing.assert_array_equal(before, after)


@pytest.mark.parametrize("count", [1, BLOCK - 1, BLOCK, 2 * BLOCK + 3])
def test_the_scale_is_that_of_all_steps_at_once(count):
    rng = np.random.default_rng(3)
    values = rng.normal(1e4, 1, (count, 6, 3)).astype(np.float32)  # a sum in float32 would be off
    values[..., 2] = np.float32(0.1)
    parts = {}
    for name in COUNTS:
        view = cut_after(values, rng.integers(2, 7, count))
        parts[name] = Part({"audio": view}, np.zeros((count, 1), np.float32))
    known = parts["train"].views["audio"]
    steps = known.values[known.mask()].astype(np.float64)
    for name, part in standardise(parts).items():
        mask, before = part.views["audio"].mask(), parts[name].views["audio"]
        spread = np.array([*steps.std(axis=0)[:2], np.inf])  # the last is constant
        expected = (before.values - steps.mean(axis=0)) / spread * mask[..., None]
        np.testing.assert_allclose(part.views["audio"].values, expected, rtol=1e-5, atol=1e-7)


def test_a_modality_that_train_never_has_cannot_be_scaled():
    view = cut_after(np.zeros((3, 4, 2), np.float32), np.full(3, 4))
    part = Part({"audio": view}, np.zeros((3, 1), np.float32))
    with pytest.raises(ValueError, match="train must have audio .*use scale=False"):
        standardise(dict.fromkeys(COUNTS, part))


def read_scaled(path):
    loaders = load(path, batch_size=None, scale=True, masks=True)
    return {
        part: [view.numpy() for view in next(iter(loader))[0]]
        for part, loader in zip(COUNTS, loaders, strict=True)
    }


def test_train_alone_is_shuffled_by_torchs_generator(write):
    def orders():
        torch.manual_seed(3)
        loaders = get_dataloader(write(), 4, num_workers=0)
        return [sum((batch[2][:, 0].tolist() for batch in loader), []) for loader in loaders]

    first = orders()
    assert first == orders() and sorted(first[0]) == list(range(11)) != first[0]
    assert first[1:] == [list(range(4)), list(range(6))]


def test_workers_give_the_same_batches(write):
    for options in ({}, {"masks": True}):
        alone, helped = (
            get_dataloader(write(), 4, train_shuffle=False, num_workers=count, **options)[0]
            for count in (0, 1)
        )
        for one, other in zip(alone, helped, strict=True):
            torch.testing.assert_close(one, other)


def test_ids_may_be_absent_or_have_columns(write, data):
    for part in COUNTS:
        data[part]["id"] = np.array([[name, 0, 1.5] for name in data[part]["id"]], dtype=object)
    assert read_parts(write())["valid"].ids[1] == "valid[1] 0 1.5"
    for part in COUNTS:
        del data[part]["id"]
    assert read_parts(write())["valid"].ids is None


def test_the_summary_counts(write):
    summary = summarise(read_parts(write()))
    assert [summary[part]["samples"] for part in COUNTS] == list(COUNTS.values())
    assert summary["test"]["features"] == WIDTHS and summary["test"]["longest"]["text"] <= STEPS
    assert summary["test"]["absent"] == {"vision": 0, "audio": 1, "text": 1}


def test_a_sample_of_zeros_is_one_absent_step(write, data):
    for key in WIDTHS:
        data["valid"][key][0] = 0
    ((views, masks, _),) = load(write(), batch_size=None, masks=True)[1]
    assert not any(view[0].any() or mask[0].any() for view, mask in zip(views, masks, strict=True))
    assert next(iter(load(write(), batch_size=None)[1]))[1][0][0] == 1  # can be packed


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (lambda d: d.pop("test"), r"must be a dict of dicts \['train', 'valid', 'test'\]"),
        (lambda d: d["valid"].pop("text"), r"valid in .*\['text'\] are missing; there are"),
        (lambda d: d["test"].update(text=d["test"]["text"][1:]), r"text of test .* \(6, steps"),
        (lambda d: d["test"].update(text=d["test"]["text"][0]), r"text of test .* \(6, steps"),
        (lambda d: d["test"].update(text=d["test"]["id"]), r"text of test .* got <U"),
        (lambda d: d["test"].update(id=d["test"]["id"][1:]), "id of test .* each of the 6 labels"),
        (lambda d: d["test"].update(vision=np.ones((6, 8, 3))), "equally many steps, got"),
        (lambda d: d["test"]["labels"].fill(3.5), r"labels of test .* \[-3, 3\], but row 0 is 3.5"),
        (lambda d: d["test"]["labels"].fill(np.nan), "labels of test .* must be finite"),
        (
            lambda d: d["test"]["id"].__setitem__(4, "test[1]"),
            "row 4 of test has 'test.1.', .* test",
        ),
        (
            lambda d: d["test"].update(id=np.append(d["test"]["id"][1:], "train[3]")),
            r"row 5 of test has 'train\[3\]', which is also in train",
        ),
    ],
)
def test_a_wrong_file_is_named_with_part_and_row(write, data, change, match):
    change(data)
    with pytest.raises(ValueError, match=match) as error:
        load(write())
    assert "mosi_raw.pkl" in str(error.value)


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"robust_test": True}, "spoils the words of text, and raw_path names none"),
        ({"robust_test": True, "text_noise": "letters"}, r"text_noise must be one of \['words'"),
        ({"flatten_time_series": True, "max_pad": True}, "flatten_time_series needs max_pad=False"),
        ({"z_norm": True, "scale": True}, "z_norm and scale exclude each other"),
        ({"data_type": "film"}, r"data_type 'film'; choose from \['mosi'"),
        ({"task": "multilabel"}, "unknown task 'multilabel'; choose from"),
        ({"modalities": ["video"]}, r"out of \['vision', 'audio', 'text'\], got \['video'\]"),
        ({"modalities": []}, "modalities must be different names"),
    ],
)
def test_wrong_options_are_answered(write, options, match):
    with pytest.raises(ValueError, match=match):
        load(write(), **options)


def test_a_missing_file_is_named_with_its_source(tmp_path):
    with pytest.raises(FileNotFoundError, match="no file .*a.pkl; it comes from .*MultiBench"):
        load(tmp_path / "a.pkl")


class Attack:
    def __init__(self, target):
        self.target = target

    def __reduce__(self):
        return os.system, (f"touch {self.target}",)


def test_a_pickle_that_runs_code_is_refused(write, data, tmp_path):
    data["train"]["extra"] = Attack(tmp_path / "made")
    with pytest.raises(ValueError, match="names .*system; nothing of it was run"):
        load(write())
    assert not (tmp_path / "made").exists()
