"""The benchmark of loading compares readers of the same samples, and reports every case."""

import pytest
import torch

from deq_fusion.examples.studies.cost import loading, loading_sets
from deq_fusion.examples.studies.tables import read_tables

TINY = ["--scale", "0.003", "--rows", "64", "--repeats", "1"]
STREAMED = {"imdb": 2, "vqa": 2, "vqa-offsets": 2}
LOADED = {"brca": 1, "mosi": 2}


@pytest.fixture(autouse=True)
def small(monkeypatch):
    monkeypatch.setattr(loading_sets.files, "DIM", 8)
    monkeypatch.setattr(loading_sets.files, "WIDTHS", (6, 5, 4))


@pytest.mark.slow
def test_the_table_has_a_row_for_every_case_and_the_files_are_gone(tmp_path, capsys):
    before = torch.get_num_threads()
    output, folder = tmp_path / "out", tmp_path / "files"
    folder.mkdir()
    told = loading.main([*TINY, "--folder", str(folder), "--output", str(output)])
    out, err = capsys.readouterr()
    (table,) = told.tables
    names = [row[0] for row in table.rows]
    assert names == ["MM-IMDB"] * 2 + ["VQA-v2"] * 4 + ["BRCA"] + ["CMU-MOSI"] * 2
    for row in table.rows:
        assert all(value >= 0 for value in row[2:7] if value is not None)
        assert sum(value is None for value in row) == 2 and row[7].endswith(("met", "missed"))
    assert str(told) in out and read_tables(output / "tables.json")[1] == {"loading": table}
    assert "vqa: writing" in err and not list(folder.iterdir())
    assert torch.get_num_threads() == before


@pytest.mark.parametrize("name", [*STREAMED, *LOADED])
def test_both_readers_read_the_samples_asked_for(tmp_path, name):
    rows, cases, loaded = 300, 0, {"brca": 2 * 30, "mosi": 3 * 30}
    for case in loading_sets.SETS[name](tmp_path, 0.003, rows):
        (ours, _), (naive, _) = case.ours(), case.naive()
        assert ours == naive
        if name in loaded:
            assert ours == loaded[name]
        else:
            wanted = rows // 4 if "vqa" in name else rows
            assert wanted <= ours < wanted + 128  # whole batches
        cases += 1
    assert cases == (STREAMED | LOADED)[name]


@pytest.mark.parametrize("offsets", [False, True])
def test_the_naive_reader_of_questions_reads_the_same_batch(tmp_path, offsets):
    path = loading_sets.files.write_vqa(tmp_path, 30, offsets=offsets)
    part = loading_sets.vqa.get_dataloader(tmp_path, min_count=1)[0].dataset
    naive = loading_sets.Questions(part, path)
    tokens, images, truth = part[[3, 50]]
    for index, row in enumerate((3, 50)):
        torch.testing.assert_close(naive[row][0], tokens[index])
        torch.testing.assert_close(naive[row][1], images[index])
        for key, column in truth.items():
            torch.testing.assert_close(naive[row][2][key], column[index])


def test_the_naive_reader_of_sequences_reads_the_same_batch(tmp_path):
    path = loading_sets.files.write_sequences(
        tmp_path / "mosi.pkl", {"train": 9, "valid": 2, "test": 2}
    )
    options = {"max_pad": True, "train_shuffle": False, "num_workers": 0}
    ours = next(iter(loading_sets.sequences.get_dataloader(path, **options)[0]))
    naive = loading_sets.read_sequences(path)[0].dataset
    for index in range(9):
        for got, expected in zip(naive[index][:3], ours[:3], strict=True):
            torch.testing.assert_close(got, expected[index])


def test_readers_of_unequal_samples_are_an_error_and_medians_are_taken():
    def reader(count, times):
        taken = iter(times)
        return lambda: (count, next(taken))

    case = loading_sets.Case("a", "b", "samples/s", 5.0, reader(8, [9, 1, 2, 4]), None)
    result = loading.measure(case._replace(naive=reader(8, [1, 8, 4, 2])), repeats=3)
    assert result[4:] == (8, 4.0, 2.0)
    assert result.to_row()[2:] == [4.0, 2.0, None, None, 2.0, ">= 5.0 samples/s: missed"]
    case = case._replace(unit="s", ours=reader(8, [9, 3, 2, 4]), naive=reader(8, [1, 9, 6, 2]))
    result = loading.measure(case, repeats=3)
    assert result[4:] == (8, 3.0, 6.0)
    assert result.to_row()[2:] == [None, None, 3.0, 6.0, 2.0, "< 5.0 s: met"]
    case = case._replace(ours=reader(8, [1, 1]), naive=reader(7, [1, 1]))
    with pytest.raises(RuntimeError, match="equally many"):
        loading.measure(case, repeats=1)


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--scale", "0"], "--scale must be positive"),
        (["--rows", "-1"], "--rows must be positive"),
        (["--scale", "1e9"], "GB free"),
        (["--folder", "nowhere/at/all"], "make it first"),
    ],
)
def test_what_cannot_be_measured_is_refused(argv, message, capsys):
    with pytest.raises(SystemExit):
        loading.main(argv)
    assert message in capsys.readouterr().err
