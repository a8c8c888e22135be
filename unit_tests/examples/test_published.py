"""Results are data: pages are what the published tables render to; no figure is typed by hand."""

import re
import shlex
from difflib import unified_diff
from importlib.util import find_spec
from itertools import islice

import pytest

from deq_fusion.examples.compare_fusions import RECIPES, SYSTEMS
from deq_fusion.examples.studies.pages import (
    END,
    ROOT,
    START,
    TEMPLATES,
    Figures,
    _filled,
    _folded,
    rendered,
)
from deq_fusion.examples.studies.pictures import DRAWN, draw, stale
from deq_fusion.examples.studies.published_tables import read_all
from deq_fusion.examples.studies.tables import Column, Spread, Table
from deq_fusion.fusions.registry import FUSIONS
from unit_tests.examples.sample_tables import published


def test_pages_are_what_the_published_tables_render_to():
    for path, text in rendered().items():
        there = path.read_text(encoding="utf-8") if path.exists() else ""
        lines = unified_diff(there.splitlines(), text.splitlines(), "there", "rendered", n=0)
        difference = "\n".join(islice(lines, 40))
        assert there == text, f"{path} differs; `make results` writes it:\n{difference}"


def test_pictures_show_the_published_tables():
    assert stale(read_all(), DRAWN) == [], "`make results` draws them"


def test_a_picture_of_other_numbers_is_drawn_anew(tmp_path):
    pytest.importorskip("matplotlib")
    columns = [Column("samples", ",.0f"), Column("method"), Column("additive", ".1%")]
    rows = [[80, "bayes", Spread(0.9, 0.0)], [80, "deq", Spread(0.7, 0.1)]]
    of = {"structures": published(Table("structures", columns, rows, 2))}
    assert stale(of, tmp_path) == ["structures"]
    text = draw("structures", of, tmp_path).read_text(encoding="utf-8")
    assert "<svg" in text and stale(of, tmp_path) == []
    rows[1][2] = Spread(0.7, 0.2)
    assert stale({"structures": published(Table("structures", columns, rows, 2))}, tmp_path)


def test_there_is_a_page_for_every_template_and_no_other():
    pages = {path.name for path in (ROOT / "docs" / "results").glob("*.md")}
    assert pages == {path.name for path in TEMPLATES.glob("*.md")} - {"README.md", "RESULTS.md"}
    results = (ROOT / "RESULTS.md").read_text(encoding="utf-8")
    assert len(results.splitlines()) <= 150
    assert set(re.findall(r"\(docs/results/(\w+\.md)\)", results)) == pages


FIGURE = re.compile(
    r"(?<![\w.])[-+]?\d[\d,]*\.\d+(?!\.?\d)"  # a number with a decimal point
    r"|\d+ ?%|± ?\d"
    r"|\d[\d,]* (?:times|ms|milli|micro|seconds?|minutes?|hours?|points?|MiB|GiB|samples/s)\b"
)
NO_RESULT = (  # what a reader of prose can tell from a result by what surrounds it
    r"^(```|~~~).*?^\1",  # blocks of code
    r"`[^`]*`",  # code, such as settings
    r"\$[^$]*\$",  # equations
    r"{[{%#].*?[#%}]}",  # what a template looks up
    r"<!--.*?-->",
    r"\]\([^)]*\)|https?://\S+|arXiv:? ?[\d.]+",  # where links and references go
    r"(?i:python|torch|numpy|version|deq-fusion|scikit-learn)\s*(?:>=|≥)?\s*\d[\d.]*\d"
    r"(?: and \d+\.\d+)?",
    r"95 % (?:confidence )?(?:interval|band)s?|\[95 %\]",  # names of statistics
    r"(?:accuracy|F1|error|correct) %",  # headings that name a unit
)
ALLOWED: dict[tuple[str, str], str] = {  # (page, figure) -> why it is no result
    ("docs/choose.md", "99 %"): "a share below which to act, not one that was measured",
    ("docs/plug_in.md", "99 %"): "a share below which to act, not one that was measured",
    **{
        ("docs/own_data.md", figure): "a threshold, or a setting's default, and nothing measured"
        for figure in ("0.33", "70 %", "85 %", "80 %", "0.7", "0.002", "0.01", "0.2")
    },
    ("docs/benchmarks/sequences.md", "0.5"): "a coefficient of the formula",
    ("docs/benchmarks/sequences.md", "0.09"): "the variance of the noise, which the code asserts",
}


def figures_in(text):
    """The figures in a text that nobody looked up, each with its line."""
    for pattern in NO_RESULT:
        text = re.sub(pattern, " ", text, flags=re.M | re.S)
    return [(m[0], line) for line in text.splitlines() for m in FIGURE.finditer(line)]


def written_by_hand():
    """Page -> its text, of templates and of what no template makes."""
    pages = {f"pages/{path.name}": path.read_text(encoding="utf-8") for path in TEMPLATES.glob("*")}
    for path in sorted((ROOT / "docs").rglob("*.md")):
        if path.parent != ROOT / "docs" / "results":
            pages[path.relative_to(ROOT).as_posix()] = path.read_text(encoding="utf-8")
    pages["upstream/pull_request.md"] = (ROOT / "upstream" / "pull_request.md").read_text("utf-8")
    before, _, rest = (ROOT / "README.md").read_text(encoding="utf-8").partition(START)
    return pages | {"README.md": before + rest.partition(END)[2]}


@pytest.mark.parametrize("page", written_by_hand())
def test_no_figure_is_typed_by_hand(page):
    found = [
        f"{figure!r} in: {line.strip()}"
        for figure, line in figures_in(written_by_hand()[page])
        if (page, figure) not in ALLOWED
    ]
    assert not found, (
        f"{page} has figures that no published table gives; look them up in a template, as "
        f'{{{{ cell("rosmap", "deq", "accuracy") }}}}, or tell ALLOWED why not: {found}'
    )


@pytest.mark.parametrize(
    "text, figures",
    [
        ("It takes 0.925, or 77 %, and 3.2 ± 1", ["0.925", "77 %", "3.2", "± 1"]),
        ("twice as fast, 12 times as long, 3,284 films", ["12 times"]),
        ("Python 3.11, torch >= 2.4, a 95 % interval, `lr=0.1`, $x^{0.5}$, accuracy %", []),
        ('{{ cell("a", "b 0.5", "c") }} 20 splits, arXiv 2306.16645, [a](b-1.5.md)', []),
        ("```\nlr 0.5\n```\n1.5", ["1.5"]),
    ],
)
def test_what_a_figure_is(text, figures):
    assert [figure for figure, _ in figures_in(text)] == figures


def test_what_is_published_is_whole_and_tells_where_it_comes_from():
    for name, table in read_all().items():
        assert table.table.rows and table.title and re.fullmatch("[0-9a-f]{40}", table.commit), name
        assert re.fullmatch(r"\d{4}-\d\d-\d\d", table.date), name
        assert bool(table.commands) != bool(table.source), f"{name}: a command, or whose it is"


def test_every_command_names_a_program_and_fusions_that_there_are():
    targets = re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.M)
    for table in read_all().values():
        for command in table.commands:
            program, first, *rest = shlex.split(command)
            if program == "make":
                assert first in targets, command
            elif program == "python":
                assert first == "-m" and find_spec(rest[0]), command
            else:
                assert (program, first) == ("deq-fusion", "compare"), command
            dataset = rest[rest.index("--dataset") + 1] if "--dataset" in rest else None
            systems = {} if dataset is None else SYSTEMS[dataset]()
            known = {*FUSIONS, *systems}
            named = {"--dataset": RECIPES, "--fusions": {*known, "all"}}
            named["--baseline"] = {*known, "linear"}
            for option, value in zip(rest, rest[1:], strict=False):
                assert set(value.split(",")) <= set(named.get(option, value.split(","))), command


@pytest.fixture
def figures():
    columns = [Column("n", "g"), Column("mae", ".3f"), Column("accuracy", ".1%")]
    rows = [[1, 1.0, 0.5], [2, Spread(2.0, 0.1), 0.75], [4, 8.0, None], [8, 64.0, 0.25]]
    grows = Table("grows", columns, rows, title="how it grows")
    return Figures({"grows": published(grows), "small": published(rows={"raw, none": ("f", "d")})})


def test_figures_are_looked_up(figures):
    assert figures.cell("grows", "2", "mae") == "2.000 ± 0.100"
    assert figures.mean("grows", "2", "mae") == "2.000" and figures.value("grows", "2", "mae") == 2
    assert figures.least("grows", "accuracy") == "25.0" and figures.most("grows", "mae") == "64.000"
    assert figures.most("grows", "mae", ["1", "2"], form=".0f") == "2"
    assert figures.size("small", "raw, no|gate", "minus full") == "0.027"
    assert figures.best("grows", "mae", lower=True) == "1"
    assert figures.best("grows", "mae", besides="8 4") == "2"
    assert figures.place("grows", "4", "mae") == "second"
    assert figures.place("grows", "4", "mae", lower=True) == "third"
    assert figures.power("grows", "mae") == "2.50"  # from 2 to 8 it grows 32 times, 4 ** 2.5
    assert figures.commands("grows", "small") == "```\nmake bench\n```"
    assert figures.rows_with("small", "no") == ["raw, no|gate", "raw, none"]
    assert "| raw | none † | failed |" in figures.table("small", rows=["raw, none"])
    shown = figures.picture("field", "grows", "a field")
    assert shown.startswith("![a field](pictures/field.svg)\n\n<small>Measured at")
    assert not figures.has("other") and figures.number() == 2 and figures.old() == 0
    with pytest.raises(KeyError, match="there is no published table 'other'"):
        figures.cell("other", "1", "mae")
    with pytest.raises(ValueError, match="a template asks for a number, but the cell is 'failed'"):
        figures.value("small", "raw, none", "accuracy")


def test_prose_is_filled_and_nothing_else_is():
    words = "word " * 30 + "77 %"
    code = "```\n" + "long " * 40 + "\n\n\nline\n```"
    text = f"# Heading\n\n{words}\n\n- one\n- {words}\n\n| {words} |\n{code}\n"
    lines = _filled(text).split("\n")
    assert f"| {words} |" in lines and "long " * 40 in lines and "- one" in lines
    prose = [line for line in lines if "word" in line and not line.startswith("|")]
    assert max(map(len, prose)) <= 100 and any(line.endswith(" 77 %") for line in prose)
    assert [line[:2] for line in prose] == ["wo", "wo", "- ", "  "]


def test_a_long_command_is_folded_as_a_shell_takes_it():
    command = "deq-fusion compare " + " ".join(f"--set option_{i}=value" for i in range(12))
    folded = _folded(command)
    assert max(map(len, folded.split("\n"))) <= 100
    assert folded.replace(" \\\n    ", " ") == command


@pytest.mark.parametrize(
    "template, readme, message",
    [
        ("{{ table('small') }} {{ what }}", f"{START}\n{END}", "RESULTS.md: 'what' is undefined"),
        (
            "{{ table('smal') }}",
            f"{START}\n{END}",
            "RESULTS.md: there is no published table 'smal'",
        ),
        ("{{ cell('small', 'raw, full', 'p') }}", f"{START}\n{END}", r"\['small'\] are on none"),
        ("{{ table('small') }}", START, "must have <!-- results --> and <!-- /results --> once"),
        ("{{ ''.__class__.__mro__ }}", f"{START}\n{END}", "RESULTS.md: access to attribute"),
    ],
)
def test_a_template_that_asks_for_what_is_not_there_is_refused(tmp_path, template, readme, message):
    published().save(tmp_path)
    (tmp_path / "pages").mkdir()
    (tmp_path / "pages" / "RESULTS.md").write_text(template)
    (tmp_path / "pages" / "README.md").write_text("")
    (tmp_path / "README.md").write_text(readme)
    with pytest.raises(ValueError, match=message):
        rendered(tmp_path, tmp_path)
