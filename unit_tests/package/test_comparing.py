"""`deq_fusion.compare`: fusions by their names in the registry, and one's own beside them."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

import deq_fusion
from deq_fusion.comparing import named
from deq_fusion.examples import compare_fusions
from deq_fusion.examples.compare_fusions import USUAL
from deq_fusion.fusions.registry import FUSIONS
from deq_fusion.training_structures.comparison import System
from deq_fusion.training_structures.comparison.program.arguments import (
    make_parser,
    read_arguments,
)
from unit_tests.training_structures.comparison import toy


def compared(*asked, **more):
    recipe = toy.recipe(epochs=1)
    return deq_fusion.compare(recipe, *asked, runs=1, unimodal=False, progress=False, **more)


def test_names_of_the_registry_and_ones_own_fusions_are_compared():
    found = compared(["deq", toy.concat])
    assert [r["method"] for r in found.results] == ["majority", "deq", "concat"]
    assert found.baseline == "concat" and "compare(toy, ['deq', 'concat']" in found.asked


def test_everything_by_name_gives_the_same():
    found = compared({"deq": FUSIONS["deq"], "concat": FUSIONS["concat"]})
    assert toy.scores(found) == toy.scores(compared(["deq", "concat"]))


def test_systems_of_the_recipe_go_by_their_names():
    chain = System(lambda recipe: recipe, "a system", "Nobody, 2020", "vectors", "d")
    assert named(["deq", "chain"], {"chain": chain}) == {"deq": FUSIONS["deq"], "chain": chain}
    with pytest.raises(ValueError, match="unknown fusion 'chian'; did you mean chain.*, chain$"):
        named(["chian"], {"chain": chain})


def test_without_names_it_is_the_whole_registry():
    assert named(None) is FUSIONS


@pytest.mark.parametrize(
    ("fusions", "message"),
    [
        (["film", "flim"], "unknown fusion 'flim'; did you mean film. or choose from deq, .*film"),
        (["deq", "deq"], "every fusion needs a name of its own, 'deq' comes twice"),
        (["concat", toy.concat], "every fusion needs a name of its own, 'concat' comes twice"),
        ("deq", r"fusions must be a list of names, got 'deq'; write \['deq'\]"),
        ([toy.Concat()], r"a fusion without a name must be given as \{name: it\}"),
        ([], "fusions must name at least one fusion, got none"),
    ],
)
def test_what_is_no_fusion_is_refused(fusions, message):
    with pytest.raises(ValueError, match=message):
        compared(fusions)


def test_the_usual_fusions_of_the_command_are_in_the_registry():
    assert set(USUAL) <= FUSIONS.keys() and len(set(USUAL)) == len(USUAL) == 25


def test_what_make_compares_is_in_the_registry():
    makefile = (Path(__file__).parents[2] / "Makefile").read_text(encoding="utf-8")
    (names,) = re.findall(r"^QUICK = (.+)$", makefile, re.MULTILINE)
    assert set(names.split(",")) <= set(FUSIONS)


def test_the_command_takes_all_of_the_registry_if_asked_to(capsys):
    parser = make_parser("it", compare_fusions.RECIPES, usual=USUAL)
    for argv, expected in (([], USUAL), (["--fusions", "all"], FUSIONS)):
        assert list(read_arguments(parser, FUSIONS, argv).chosen) == list(expected)
    with pytest.raises(SystemExit):
        compare_fusions.main(["--help"])
    said = re.sub(r"\s+", " ", capsys.readouterr().out)
    assert "or all; what cannot take the data is left out (default: deq, deq_one_step" in said


@pytest.mark.slow
def test_the_plugin_alone_does_not_import_it():
    code = (
        "import sys, deq_fusion; deq_fusion.DEQFusion; print('deq_fusion.comparing' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
