"""CMU-MOSI's sequences: layouts beside ours, wrong types deep inside, numbers beyond float32.

Every error names the file; what can be read in two ways is refused, or warned of.
"""

import contextlib
import copy
import pickle
import re

import numpy as np
import pytest

from deq_fusion.datasets.affect import get_data, mmsa

COUNTS = {"train": 6, "valid": 3, "test": 4}
WIDTHS = {"text": 6, "audio": 4, "vision": 3}
STEPS = 5


def sequences(rng, count, *, front):
    """Views of 1 to 4 steps, padded in front or behind."""
    views = {key: rng.normal(size=(count, STEPS, width)) for key, width in WIDTHS.items()}
    for view in views.values():
        for row in range(count):
            end = 1 + row % 4
            view[row, slice(0, STEPS - end) if front else slice(end, None)] = 0
    return views


@pytest.fixture
def multibench():
    rng = np.random.default_rng(0)
    return {
        part: sequences(rng, count, front=True)
        | {
            "labels": rng.uniform(-3, 3, (count, 1, 1)),
            "id": np.array([f"{part}{row}" for row in range(count)]),
        }
        for part, count in COUNTS.items()
    }


@pytest.fixture
def published():
    """MMSA's, with lengths."""
    rng, data = np.random.default_rng(1), {}
    for part, count in COUNTS.items():
        ends = 1 + np.arange(count) % 4
        mask = np.arange(STEPS) < ends[:, None]
        data[part] = sequences(rng, count, front=False) | {
            "text_bert": np.stack([101 * mask, mask, 0 * mask], axis=1).astype(np.float32),
            "audio_lengths": ends.tolist(),
            "vision_lengths": ends,
            "regression_labels": rng.uniform(-3, 3, count),
            "id": [f"{part}_$_{row}" for row in range(count)],
            "raw_text": [f"words {row}" for row in range(count)],
        }
    return data


@pytest.fixture
def read(tmp_path):
    """Reads what is pickled first with the adapter, batch by batch."""

    def read(content, module, **options):
        path = tmp_path / "file.pkl"
        path.write_bytes(pickle.dumps(content))
        options |= {"num_workers": 0} if module is get_data else {}
        for loader in module.get_dataloader(path, **options):
            for _ in loader:
                pass
        return module.read_parts(path)

    return read


BOTH = pytest.mark.parametrize("module", [get_data, mmsa])


@pytest.fixture
def content(module, multibench, published):
    return multibench if module is get_data else published


@BOTH
@pytest.mark.parametrize("scale", [False, True])
def test_healthy_files_are_read_without_a_word(read, content, module, scale):
    parts = read(content, module, scale=scale)
    assert {name: len(part.labels) for name, part in parts.items()} == COUNTS


@BOTH
@pytest.mark.parametrize(
    ("value", "number"), [(-1e300, r"-1e\+300"), (1e39, r"1e\+39"), (3.5e38, r"3.5e\+38")]
)
def test_a_number_beyond_float32_is_named_and_called_finite(read, content, module, value, number):
    content["train"]["audio"][2, 1, 3] = value
    with pytest.raises(
        ValueError, match=r"audio of train in .*file.pkl .* 3.4e.?38.* row 2"
    ) as error:
        read(content, module)
    assert re.search(rf"{number} is finite", str(error.value)) and "missing" not in str(error.value)


WRONG = [
    {"a": 1},
    {},
    None,
    "text",
    [],
    [[1.0, [2.0]], [3.0]],
    [True] * 6,
    [10**400] * 6,
    [10**400, 1.5],
    ["1"] * 6,
    np.zeros((6, 5, 4), bool),
    np.zeros((6, 5, 4), complex),
    np.full((6, 5, 4), "1"),
    np.full((6, 5, 4), None),
    np.float64(1),
    [np.zeros((5, 4))] * 5 + [np.zeros((4, 4))],
]


@BOTH
@pytest.mark.parametrize("key", ["audio", "text", "labels"])
@pytest.mark.parametrize("value", WRONG, ids=lambda value: type(value).__name__)
def test_something_else_in_an_arrays_place_is_named(read, content, module, key, value):
    key = "regression_labels" if module is mmsa and key == "labels" else key
    content["train"][key] = value
    with pytest.raises(ValueError, match=rf"^{key} of train in .*file.pkl must be") as error:
        read(content, module)
    assert type(error.value) is ValueError and len(str(error.value)) < 400


@BOTH
def test_lists_of_arrays_and_of_numbers_are_arrays(read, content, module):
    expected = read(copy.deepcopy(content), module)["train"]
    key = "regression_labels" if module is mmsa else "labels"
    content["train"]["audio"] = list(content["train"]["audio"])
    content["train"][key] = content["train"][key].ravel().tolist()
    got = read(content, module)["train"]
    np.testing.assert_array_equal(got.views["audio"].values, expected.views["audio"].values)
    np.testing.assert_array_equal(got.labels, expected.labels)


def test_a_list_that_holds_an_array_many_times_is_not_copied_out(read, published):
    published["train"]["audio"] = [np.zeros((1000, 1000))] * 10_000  # 80 GB of 8 MB
    with pytest.raises(ValueError, match="file.pkl .* holds the same things so often"):
        read(published, mmsa)


@BOTH
@pytest.mark.parametrize("value", [3.5, -3.01, -(2**63), 2**64 - 1])
def test_labels_out_of_range_are_named_by_row(read, content, module, value):
    key = "regression_labels" if module is mmsa else "labels"
    kind = np.uint64 if value == 2**64 - 1 else np.int64 if value == -(2**63) else float
    labels = np.zeros(COUNTS["test"], kind)
    labels[[1, 3]] = value
    content["test"][key] = labels
    with pytest.raises(ValueError, match=rf"{key} of test in .* \[-3, 3\], but row 1 is"):
        read(content, module)


@pytest.mark.parametrize(("data_type", "task"), [("humor", "classification"), ("sarcasm", None)])
@pytest.mark.parametrize("value", [0.5, 2, -1])
def test_classes_of_multibenchs_sets_are_classes(read, multibench, data_type, task, value):
    for part, count in COUNTS.items():
        multibench[part]["labels"] = np.resize([0.0, 1.0], (count, 1, 1))
    options = {"data_type": data_type, "task": task}
    read(multibench, get_data, **options)
    multibench["valid"]["labels"][2] = value
    good = (data_type, value) == ("sarcasm", -1)
    refused = pytest.raises(ValueError, match=r"labels of valid in .* row 2 is")
    with contextlib.nullcontext() if good else refused:
        read(multibench, get_data, **options)


def test_unaligned_files_are_told_where_to_go(read, multibench):
    for part in multibench.values():
        part["audio"] = np.repeat(part["audio"], 3, axis=1)
    with pytest.raises(
        ValueError,
        match="equally many steps, .* not aligned .*mosi_raw.pkl .* MMSA's .* datasets.affect.mmsa",
    ):
        read(multibench, get_data)


def test_steps_that_come_last_are_refused_where_the_file_shows_it(read, multibench, published):
    for part in multibench.values():
        for key in WIDTHS:
            part[key] = part[key].swapaxes(1, 2)
    with pytest.raises(
        ValueError, match="file.pkl must have equally many steps.*steps seem to come last; exchange"
    ):
        read(multibench, get_data)
    turned = copy.deepcopy(published)
    for part in turned.values():
        part["text"] = part["text"].swapaxes(1, 2)
    with pytest.raises(
        ValueError, match="text_bert of train in .* steps of text seem to come last"
    ):
        read(turned, mmsa)
    for part in published.values():
        part["vision"] = part["vision"].swapaxes(1, 2)
    with pytest.raises(
        ValueError,
        match="vision_lengths of train .* up to 4, .* has 3 steps; its steps seem to come last",
    ):
        read(published, mmsa)


def test_steps_that_come_last_are_warned_of_where_zeros_tell(tmp_path, multibench):
    for part in multibench.values():
        part["text"] = part["text"].swapaxes(1, 2)
    path = tmp_path / "mosi_raw.pkl"
    path.write_bytes(pickle.dumps(multibench))
    with pytest.warns(UserWarning, match=r"text of \w+ in .* shape \(\d, 6, 5\), has zeros at"):
        get_data.read_parts(path, modalities=["text"])


def test_features_that_are_always_zero_are_no_padding(read, multibench):
    for part in multibench.values():
        for key in WIDTHS:
            part[key] = np.random.default_rng(0).random(part[key].shape)
            part[key][:, :, 0] = 0
        part["text"][0, :, -1] = 0
    read(multibench, get_data)


@BOTH
def test_features_must_be_the_same_in_all_parts(read, content, module):
    content["test"]["audio"] = content["test"]["audio"][:, :, :-1]
    with pytest.raises(ValueError, match=r"audio in .*file.pkl must .* all parts, got .*'test': 3"):
        read(content, module)


@BOTH
def test_a_modality_that_train_never_has_is_warned_of(read, content, module):
    content["train"]["audio"][:] = 0
    with pytest.warns(UserWarning, match="audio of train in .*file.pkl is zero in every sample"):
        read(content, module)
    with (
        pytest.warns(UserWarning, match="is zero in every sample"),
        pytest.raises(
            ValueError, match="train must have audio to be scaled by, .*file.pkl has none"
        ),
    ):
        read(content, module, scale=True)


@BOTH
def test_a_scale_that_leaves_float32_is_refused(read, content, module):
    train = content["train"]["audio"]
    train[..., 1] = np.where(train[..., 1] == 0, 0, 1)
    train[0, train[0].any(axis=1), 1] = 1 + 1e-7
    content["test"]["audio"][3, :, 1] = 3e38
    with pytest.raises(
        ValueError,
        match="audio of test in .*file.pkl must be finite once scaled by train, but rows 0 to 3",
    ):
        read(content, module, scale=True)


@pytest.mark.parametrize(
    ("ids", "message"),
    [
        (np.array(["a", "a", "b"]), "row 1 of valid has 'a', which is also in valid"),
        (["train0", "x", "y"], "row 0 of valid has 'train0', which is also in train"),
        ([b"train2", "x", "y"], "row 0 of valid has 'train2', which is also in train"),
        ([1, 2, "1"], "row 2 of valid has '1', which is also in valid"),
        (["x\x1b[2J", "y", "x\x1b[2J"], re.escape(r"row 2 of valid has 'x\x1b[2J', which")),
        ([None, "x", "y"], ", row 0, must be text or a number, got None"),
        ([float("nan"), "x", "y"], "row 0, must be text or a number, got nan"),
        ([[["x"]], "y", "z"], "row 0, must be text or a number, got a list of 1"),
        ([True, "x", "y"], "row 0, must be text or a number, got True"),
        ([10**2000, "x", "y"], "row 0, must be text or a number, got an integer of 6644 bits"),
        (["x", "y"], "each of the 3 labels, got a list of 2"),
        ("xyz", "each of the 3 labels, got 'xyz'"),
        ({"x": 1, "y": 2, "z": 3}, "each of the 3 labels, got a dict of 3"),
        (np.zeros((3, 99)), r"each of the 3 labels, got shape \(3, 99\)"),
        ([["x"] * 99, "y", "z"], "at most 16 columns"),
        (np.array([1114112] * 3, "<u4").view("<U1"), " is damaged: it holds what is no text"),
    ],
)
def test_what_is_no_id_is_named(read, multibench, ids, message):
    multibench["valid"]["id"] = ids
    with pytest.raises(ValueError, match=f"file.pkl.*{message}"):
        read(multibench, get_data)


def test_ids_may_be_bytes_numbers_and_half_of_a_pair(read, multibench):
    multibench["valid"]["id"] = [b"a", 7, "b\ud83d"]
    assert read(multibench, get_data)["valid"].ids == ["a", "7", "b\ufffd"]


def test_transcripts_are_texts(read, published):
    published["valid"]["raw_text"] = ["a\ud83d", b"caf\xc3\xa9", np.str_("b")]
    assert read(published, mmsa)["valid"].texts == ["a\ufffd", "café", "b"]
    published["valid"]["raw_text"][1] = float("nan")
    with pytest.raises(ValueError, match="raw_text of valid in .* row 1 has nan; fill in or leave"):
        read(published, mmsa)


@pytest.mark.parametrize(
    ("lengths", "message"),
    [
        (np.full(6, 2**64 - 1, np.uint64), None),  # of sequences that were cut
        ([0, 1, 2, 3, 4, 10**30], "must be an array of numbers, got a list of 6"),
        ([0, 1, 2, 3, 4, 2.5], "must be 6 whole numbers >= 0, got float64"),
        ([True] * 6, "must be an array of numbers"),
        (np.array([[1]] * 6), r"must be 6 whole numbers >= 0, got int64 of shape \(6, 1\)"),
        ({"a": 1}, "must be an array of numbers, got a dict of 1"),
    ],
)
def test_lengths_are_whole_numbers(read, published, lengths, message):
    published["train"]["audio_lengths"] = lengths
    if message is None:
        assert (read(published, mmsa)["train"].views["audio"].lengths == STEPS).all()
    else:
        with pytest.raises(ValueError, match=f"audio_lengths of train in .*file.pkl {message}"):
            read(published, mmsa)


@BOTH
def test_names_of_a_file_are_escaped_and_cut(read, content, module):
    content["train"] = {f"\x1b[{n}m{'long' * 100}": 1 for n in range(500)}
    with pytest.raises(
        ValueError, match=r"train in .* are missing; there are .* and 480 more"
    ) as error:
        read(content, module)
    assert "\x1b" not in str(error.value) and len(str(error.value)) < 4000
    with pytest.raises(ValueError, match="must be a dict of dicts .* got a list of 2"):
        read([1, 2], module)


@pytest.mark.parametrize("steps", [0, -1, 2.5, True])
def test_steps_to_cut_to_are_whole_numbers(read, published, multibench, steps):
    with pytest.raises(ValueError, match="steps must be a whole number from 1 up, got"):
        read(published, mmsa, steps=steps)
    with pytest.raises(ValueError, match="steps must be a whole number from 1 up, got"):
        read(multibench, get_data, max_pad=True, max_seq_len=steps)


def test_drop_empty_leaves_somebody(read, multibench):
    multibench["test"]["text"][:] = 0
    with pytest.raises(
        ValueError, match="no sample of test in .*file.pkl has text; use drop_empty"
    ):
        read(multibench, get_data, drop_empty=True)
