"""What the documentation is built with: text from elsewhere, equations, notebooks."""

import importlib.util
from pathlib import Path

import pytest

pytest.importorskip("mkdocs")
pytest.importorskip("latex2mathml")

HOOKS = Path(__file__).parents[1] / "docs/hooks"


def hook(name: str):
    spec = importlib.util.spec_from_file_location(name, HOOKS / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    ("link", "there"),
    [
        ("[a](../../RESULTS.md#cost)", "[a](../results.md#cost)"),
        ("[a](../vqa/README.md)", "[a](vqa.md)"),
        ("[a](../../docs/method.md)", "[a](../method.md)"),
        ("[a](get_data.py)", "a"),
        ("Two:\n- a\n- b", "Two:\n\n- a\n- b"),
        ("[a](https://example.org) [b](#files)", "[a](https://example.org) [b](#files)"),
    ],
)
def test_links_and_lists_of_text_from_elsewhere(link, there):
    moved = hook("included").moved
    assert moved(link, "datasets/brca/README.md", "benchmarks/brca.md") == there


@pytest.mark.parametrize(
    ("link", "there"),
    [
        ("[a](../CHANGELOG.md)", "[a](changelog.md)"),
        ("[a](notebooks/b.py)", "[a](notebooks/b.md)"),
        ("[a](method.md#c)", "[a](method.md#c)"),
        ("[a](../examples/b.py)", "a"),
    ],
)
def test_links_of_a_page_lead_to_files_on_disk_and_to_pages_of_the_site(link, there):
    assert hook("included").moved(link, "docs/choose.md", "choose.md") == there


def test_pages_of_results_have_a_fixed_order():
    names = ["other", "cost", "vqa", "protocol"]
    found = sorted((Path(f"{name}.md") for name in names), key=hook("included").place)
    assert [page.stem for page in found] == ["protocol", "vqa", "cost", "other"]


def test_equations_are_drawn_and_code_is_left_alone():
    drawn = hook("equations").on_page_markdown
    assert drawn("of $z_i$,").count("<math") == 1
    assert drawn("```math\nx = 1\n```\n").startswith('<div class="equation"><math')
    for code in ("`$a$`", "```console\necho $HOME $PATH\n```", "5 $ and 6 $"):
        assert drawn(code) == code


def test_a_notebook_shows_what_is_printed_named_and_drawn(tmp_path):
    cells = [
        "# %% [markdown]\n# # Title",
        "# %%\nimport matplotlib.pyplot as plt\nx = 3\nprint('said')\nx",
        "# %%\n_ = plt.plot([1, 2])",
    ]
    page, figures = hook("notebooks").run(tmp_path / "toy.py", "\n\n".join(cells))
    assert page.startswith("# Title")
    assert "\nsaid\n" in page and "\n3\n" in page
    assert page.endswith("![figure](toy_1.svg)")
    assert b"<svg" in figures["toy_1.svg"]


def test_every_package_folder_is_found():
    assert {"fusions", "training_structures", "own_data"} <= {*hook("package").packages()}
