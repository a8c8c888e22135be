"""What is compared: floors, single modalities, and the fusions that can take the recipe."""

import pytest
import torch

from deq_fusion.training_structures.comparison.methods import Method, gather, refusal
from deq_fusion.training_structures.comparison.single_run import run_floor, run_fusion
from unit_tests.training_structures.comparison import toy


def declaring(**declared):
    """A fusion that says what it takes."""

    class Declaring(toy.Sum):
        pass

    for name, value in declared.items():
        setattr(Declaring, name, value)
    return Declaring


def names(recipe, **asked):
    methods, _ = gather(recipe, toy.FUSIONS, **{"unimodal": True} | asked)
    return [method.name for method in methods]


def test_floors_come_first_then_single_modalities_then_fusions():
    assert names(toy.recipe()) == ["majority", "only a", "only b", "sum", "concat"]
    assert names(toy.recipe(), unimodal=False) == ["majority", "sum", "concat"]
    assert names(toy.recipe(modalities=["b"])) == ["majority", "sum", "concat"]


def test_a_floor_learns_from_all_that_is_not_scored():
    asked = []

    def floor(known, scored):
        asked.append(([len(loader.dataset) for loader in known], len(scored.dataset)))
        return toy.majority(known, scored)

    for part in ("test", "valid"):
        recipe = toy.recipe(floors={"floor": floor}, part=part)
        run_floor(Method("floor", recipe, None), run=0)
    train, valid, test = toy.SIZES
    assert asked == [([train, valid], test), ([train], valid)]


def test_a_floor_is_scored_on_the_test_part():
    known, scored = toy.load(1, ["a", "b"])[:2], toy.truth_of(toy.load(1, ["a", "b"])[2])
    guess = torch.cat([toy.truth_of(loader) for loader in known]).mode().values
    result = run_floor(Method("majority", toy.recipe(), None), run=1)
    assert result["scores"]["accuracy"] == pytest.approx(float((scored == guess).double().mean()))


def test_a_single_modality_is_loaded_alone():
    loaded, met = [], []

    def load(run, modalities):
        loaded.append(list(modalities))
        return toy.load(run, modalities)

    def build(fusion, train):
        met.append(train.dataset.dataset.tensors[0])
        return toy.build(fusion, train)

    methods, _ = gather(toy.recipe(load=load, build=build), toy.FUSIONS, unimodal=True)
    only_b = next(method for method in methods if method.name == "only b")
    result = run_fusion(only_b, run=0)
    assert loaded == [["b"]]
    expected = toy.load(0, ["a", "b"])[0].dataset.dataset.tensors[1]
    torch.testing.assert_close(met[0], expected)
    assert result["fusion_parameters"] == 0 and result["parameters"] == 3 * 2 + 2  # its head


@pytest.mark.parametrize(
    ("declared", "reason"),
    [
        ({"modalities": (3, 3)}, "takes 3 modalities, and there are 2"),
        ({"modalities": (3, 4)}, "takes 3 to 4 modalities, and there are 2"),
        ({"modalities": (3, None)}, "takes 3 or more modalities, and there are 2"),
        ({"modalities": (1, 1)}, "takes 1 modality, and there are 2"),
        ({"features": ("sequences",)}, "does not take vectors"),
        ({"tasks": ("regression", "multilabel")}, "does not do classification"),
        ({"modalities": (2, 2), "features": ("vectors",), "tasks": ("classification",)}, None),
        ({}, None),
    ],
)
def test_what_a_fusion_declares_decides_whether_it_is_compared(declared, reason):
    fusion = declaring(**declared)
    assert refusal(fusion, toy.recipe()) == reason
    methods, skipped = gather(toy.recipe(), {"it": fusion}, unimodal=False)
    assert skipped == ({} if reason is None else {"it": reason})
    assert ("it" in [method.name for method in methods]) == (reason is None)


def test_a_fusion_that_predicts_is_told_what():
    told = {}

    def predicting(input_dims, dim, **options):
        told.update(options)
        return toy.Sum(input_dims, dim), dim

    predicting.predicts = True
    run_fusion(Method("it", toy.recipe(), predicting), run=0)
    assert told == {"outputs": 2, "task": "classification"}


def test_every_method_needs_a_name_of_its_own():
    with pytest.raises(ValueError, match=r"a name of its own, got \['majority', 'only a'\] twice"):
        gather(toy.recipe(), {"only a": toy.Sum, "majority": toy.Sum}, unimodal=True)


@pytest.mark.parametrize("wrong", [["c"], ["a", "a"], []])
def test_a_recipe_is_restricted_to_modalities_that_it_has(wrong):
    with pytest.raises(ValueError, match="modalities must be different names out of"):
        toy.recipe().restricted(wrong)
    assert toy.recipe().restricted(["b"]).modalities == ("b",)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"task": "ranking"}, "task must be one of .*'multilabel'.*got 'ranking'"),
        ({"features": "graphs"}, "features must be one of .*got 'graphs'"),
        ({"part": "train"}, "part must be one of .*got 'train'"),
        ({"scores": []}, "scores must name at least one of the metrics"),
        (
            {"parameters": list, "fusion_lr": {"sum": 0.1}},
            r"fusion_lr must be left out, got \{'sum': 0.1\}",
        ),
    ],
)
def test_a_recipe_says_what_it_cannot_be(wrong, message):
    with pytest.raises(ValueError, match=message):
        toy.recipe(**wrong)
