"""Every benchmark's recipe and scripts run end to end on small files of the real layout."""

import json
import pickle
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch

from deq_fusion.examples.affect import train as affect_train
from deq_fusion.examples.affect.recipe import recipe as mosi
from deq_fusion.examples.brca import train as brca_train
from deq_fusion.examples.compare_fusions import PROGRAM, RECIPES
from deq_fusion.examples.imdb import train as imdb_train
from deq_fusion.examples.imdb.recipe import recipe as imdb
from deq_fusion.examples.vqa import train as vqa_train
from deq_fusion.examples.vqa.recipe import recipe as vqa
from deq_fusion.fusions.registry import FUSIONS
from deq_fusion.training_structures.comparison import command_line
from unit_tests.examples.told import told

COLOURS = ["red", "blue", "green"]


@pytest.fixture
def questions(tmp_path):
    """What colour a picture has: the question says nothing, the picture everything."""
    tmp_path = tmp_path / "questions"
    tmp_path.mkdir()
    for part, count in (("train", 60), ("val", 30)):
        ids = [(part == "val") * 1000 + number for number in range(count)]
        answers = [COLOURS[number % 3] for number in ids]
        asked = [
            {"question_id": n, "image_id": n, "question": f"what colour is thing {n % 2}"}
            for n in ids
        ]
        given = [
            {
                "question_id": n,
                "image_id": n,
                "answer_type": "other",
                "question_type": "what",
                "multiple_choice_answer": a,
                "answers": [{"answer": a, "answer_id": k} for k in range(10)],
            }
            for n, a in zip(ids, answers, strict=True)
        ]
        (tmp_path / f"{part}_questions.json").write_text(json.dumps({"questions": asked}))
        (tmp_path / f"{part}_annotations.json").write_text(json.dumps({"annotations": given}))
    return tmp_path


@pytest.fixture
def pictures(questions):
    ids = np.array([*range(60), *range(1000, 1030)])
    colours = np.eye(3)[ids % 3][:, None].repeat(4, axis=1)
    with h5py.File(questions / "regions.hdf5", "w") as file:
        file["features"], file["image_ids"] = colours.astype("f2"), ids
    return questions


def small(recipe, folder, **settings):
    return replace(recipe(folder, **settings), epochs=1)


def called(main, folder, *more):
    return main(["--data-dir", str(folder), "--epochs", "1", *more])


def test_films_are_learnt_from_features(films, capsys):
    more = ["--set", "width=8", "--set", "balanced=True", "--set", "lr=0.02", "--epochs", "30"]
    for fusion in ("deq", "concat"):
        assert called(imdb_train.main, films, *more, "--fusion", fusion)["scores"]["f1_micro"] > 0.9
    assert "f1_macro" in capsys.readouterr().out
    alone = called(imdb_train.main, films, "--unimodal", *more)
    assert list(alone) == ["text", "image"]
    assert alone["text"]["parameters"] < alone["image"]["parameters"]


def test_the_linear_floor_knows_the_films(films):
    recipe = small(imdb, films)
    train, valid, test = recipe.loaders(0)
    logits = recipe.floors["linear"]([train, valid], test)
    truth = torch.cat([batch[-1] for batch in test])
    assert recipe.metrics(logits, truth)["f1_macro"] == 1.0


@pytest.mark.parametrize("encoders", ["resnet_bert", "vgg_bert"])
def test_films_are_read_raw(raw_films, encoders):
    more = [f"encoders={encoders}", "width=8", "size=32", "length=8", "batch_size=8"]
    more += ["balanced=True"]
    arguments = [word for setting in more for word in ("--set", setting)]
    assert called(imdb_train.main, raw_films, *arguments)["solver_converged"] > 0.9
    alone = called(imdb_train.main, raw_films, "--unimodal", *arguments)
    assert list(alone) == ["text", "image"]


def test_published_rows_differ_as_the_paper_says(films):
    chosen = {name: small(imdb, films, encoders=name) for name in ("vgg_bert", "resnet_bert")}
    assert [r.accumulate for r in chosen.values()] == [1, 10]
    assert [r.optimizer.keywords["lr"] for r in chosen.values()] == [5e-5, 1e-4]
    assert all(r.select == "f1_micro" and r.scheduler for r in chosen.values())
    assert small(imdb, films).fusion_lr["deq"] == pytest.approx(1e-4)
    assert small(imdb, films, batch_size=4, encoders="resnet_bert").accumulate == 1


def test_colours_are_answered_from_pictures(pictures):
    more = ["--set", "width=16", "--set", "batch_size=8", "--set", "lr=0.01", "--epochs", "40"]
    for fusion in ("deq", "mutan"):
        assert (
            called(vqa_train.main, pictures, *more, "--fusion", fusion)["scores"]["accuracy"] > 0.7
        )
    alone = called(vqa_train.main, pictures, "--unimodal", *more)
    assert alone["image"]["scores"]["accuracy"] > 0.7
    assert alone["question"]["scores"]["accuracy"] < 0.6  # chance is a third


def test_questions_alone_have_two_views(questions):
    recipe = small(vqa, questions, min_count=1)
    assert recipe.modalities == ("question", "words")
    result = called(vqa_train.main, questions, "--set", "width=8")
    assert result["solver_converged"] > 0.9


def test_images_that_are_not_there_are_asked_for(questions):
    with pytest.raises(ValueError, match="has no image features.*extract_features"):
        vqa(questions).restricted(["image"])


def test_floors_of_questions_by_counting(questions):
    recipe = small(vqa, questions, min_count=1)
    train, valid, test = recipe.loaders(0)
    truth = test.dataset.dataset.truth
    answers = train.dataset.dataset.answers.answers
    known = [int(row[0]) for part in (train, valid) for row in part.dataset.dataset.truth["answer"]]
    most = max(range(len(answers)), key=known.count)
    logits = recipe.floors["most frequent"]([train, valid], test)
    assert logits.shape == (30, len(answers))
    assert known.count(int(logits[0].argmax())) == known.count(most)
    words = recipe.floors["naive Bayes"]([train, valid], test)
    assert recipe.metrics(words, truth)["accuracy"] <= 0.6  # words say nothing of the colour


def sequences(rng, rows, steps, width):
    values = rng.normal(size=(rows, steps, width)).astype("f4")
    values[:, : steps // 3] = 0  # padded on the left
    return values


@pytest.fixture
def multibench_file(tmp_path):
    rng = np.random.default_rng(0)
    parts = {}
    for part, rows in (("train", 40), ("valid", 12), ("test", 12)):
        views = {"vision": 5, "audio": 4, "text": 6}
        parts[part] = {name: sequences(rng, rows, 6, width) for name, width in views.items()}
        labels = rng.uniform(-3, 3, (rows, 1, 1)).astype("f4")
        parts[part]["text"][:, 2:] += labels  # and the others say nothing
        parts[part]["labels"] = labels
        parts[part]["id"] = [f"{part}_{row}" for row in range(rows)]
    (tmp_path / "mosi_raw.pkl").write_bytes(pickle.dumps(parts))
    return tmp_path


def test_sequences_of_multibench_are_fused(multibench_file):
    assert small(mosi, multibench_file).modalities == ("vision", "audio", "text")
    main = affect_train.main
    for fusion in ("deq", "weighted_sum"):
        more = ["--modalities", "text,audio", "--epochs", "60", "--fusion", fusion]
        result = called(main, multibench_file, *more)
        assert result["scores"]["corr"] > 0.8
    assert list(called(main, multibench_file, "--unimodal")) == ["vision", "audio", "text"]


def test_a_folder_without_a_known_file_is_explained(tmp_path, multibench_file):
    with pytest.raises(ValueError, match="must hold one of .*mosi_raw.pkl.*got none"):
        small(mosi, tmp_path / "empty")
    (tmp_path / "aligned_50.pkl").write_bytes(b"")
    with pytest.raises(ValueError, match="got 2: mosi_raw.pkl, aligned_50.pkl; .*--set file"):
        small(mosi, tmp_path)
    assert small(mosi, tmp_path, file="mosi_raw.pkl").name == "CMU-MOSI, mosi_raw.pkl"


@pytest.mark.parametrize("recipe", [imdb, vqa, mosi])
def test_what_a_recipe_lacks_is_said(recipe, tmp_path):
    with pytest.raises(ValueError, match=r"data_dir \(--data-dir\) must name the folder"):
        recipe()
    with pytest.raises(ValueError, match=r"leave out official \(--official\)"):
        recipe(tmp_path, official=True)
    if recipe is imdb:
        with pytest.raises(ValueError, match="encoders must be one of"):
            small(imdb, tmp_path, encoders="vgg")


@pytest.fixture
def omics(tmp_path):
    rng = np.random.default_rng(0)
    for part, count in (("tr", 30), ("te", 10)):
        labels = np.arange(count) % 2
        np.savetxt(tmp_path / f"labels_{part}.csv", labels, fmt="%d")
        for view in (1, 2, 3):
            np.savetxt(tmp_path / f"{view}_{part}.csv", rng.random((count, 5)), delimiter=",")
    return tmp_path


@pytest.fixture
def sets(tmp_path, raw_films, pictures, multibench_file, omics):
    """Returns the sets below a folder, one of them changed; below it lies a copy, written now."""
    shutil.copytree(raw_films, tmp_path / "changed")
    with h5py.File(tmp_path / "changed" / "multimodal_imdb.hdf5", "a") as file:
        file["vgg_features"][7, 3] += 1
    copy, rest = copied(tmp_path), shutil.ignore_patterns("copied")
    shutil.copytree(tmp_path, copy, copy_function=shutil.copyfile, ignore=rest)
    raw = {"encoders": "resnet_bert"}
    films = [("imdb", "films", {}), ("imdb", "changed", {}), ("imdb", "films", raw)]
    return [*films, ("vqa", "questions", {}), ("mosi", "", {}), ("brca", "", {})]


def copied(folder):
    return folder / "copied" / folder.name


def told_elsewhere(what, folder, sets):
    """Returns what another process says of a copy."""
    command = [sys.executable, "-m", "unit_tests.examples.told", what]
    command += [copied(folder), json.dumps(sets)]
    root = Path(__file__).parents[2]
    done = subprocess.run(command, cwd=root, stdout=subprocess.PIPE, check=True)
    return json.loads(done.stdout)


@pytest.mark.slow
def test_data_are_the_same_in_another_process_and_copied(sets, tmp_path):
    here = told("data", tmp_path, sets)
    assert here[0] != here[1]
    assert told_elsewhere("data", tmp_path, sets) == here


@pytest.mark.slow
def test_methods_are_the_same_in_another_process_and_for_copied_files(sets, tmp_path):
    here = told("methods", tmp_path, sets)
    assert all("deq" in methods for methods in here)
    assert told_elsewhere("methods", tmp_path, sets) == here


def test_brca_scripts(omics):
    more = ["--set", "hidden=16"]
    assert (
        called(brca_train.main, omics, *more, "--fusion", "concat")["fusion_parameters"] == 0
    )  # concatenation
    assert list(called(brca_train.main, omics, "--unimodal", *more)) == [
        "mRNA",
        "methylation",
        "miRNA",
    ]


def test_the_command_line_takes_settings_of_every_set(films, pictures, tmp_path):
    for name, folder in (("imdb", films), ("vqa", pictures)):
        arguments = ["--dataset", name, "--data-dir", str(folder), "--set", "width=8"]
        arguments += ["--fusions", "deq,concat,evidential", "--runs", "1", "--epochs", "1"]
        arguments += ["--output", str(tmp_path / f"out-{name}")]
        found = command_line(RECIPES, FUSIONS, arguments, program=PROGRAM)
        assert not found.failures
        assert found.skipped == {"evidential": "does not do multilabel"}


def test_vocabularies_follow_the_method_of_tokenising(questions):
    kept = {
        name: small(vqa, questions, tokenise=name).loaders(0)[0].dataset.dataset.answers
        for name in ("mcan", "mutan")
    }
    assert [kept[name].normalised for name in kept] == [True, False]
    few = small(vqa, questions, min_count=19).loaders(0)[0].dataset.dataset.answers
    assert len(few) < len(kept["mcan"])  # each of three colours occurs about 18 times in train
