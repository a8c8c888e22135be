"""Documentation is made from the docstrings: what they list is found, and is there.

One folder by hand, checked here or not:
python -c "from unit_tests.test_docstrings import faults; print(*faults('datasets'), sep='\\n')"
"""

import logging
import re
from pathlib import Path

import griffe
import pytest

ROOT = Path(__file__).parents[1]
CHECKED = (
    "datasets",
    "eval_scripts",
    "examples",
    "fusions",
    "objective_functions",
    "package",
    "private_test_scripts",
    "robustness",
    "training_structures",
    "unimodals",
    "utils",
)
LISTS = ("attributes", "raises", "warns")  # of parameters griffe itself says what is wrong


class _Kept(logging.Handler):
    """The messages of griffe, each with its file and line."""

    def __init__(self):
        super().__init__(logging.WARNING)
        self.messages = []

    def emit(self, record):
        self.messages.append(record.getMessage())


def documented(thing):
    """The module, class or function and all in it that is defined there, if it has a docstring."""
    if thing.docstring:
        yield thing
    for member in thing.members.values():
        if not member.is_alias:
            yield from documented(member)


def entries(sections):
    """(list, name) of every entry of `LISTS`; of an error the name is that of its class."""
    for section in sections:
        if section.kind.value in LISTS:
            for entry in section.value:
                name = getattr(entry, "name", None) or str(entry.annotation).strip("()")
                yield section.kind.value, name


def faults_of(thing):
    """What is wrong with the docstring of one thing, but for what griffe says itself."""
    text = thing.docstring.value
    if re.match(r"What\b", text):
        yield "begins with What; say what the thing is"
    for line in text.splitlines():
        if found := re.match(r" +(\*{0,2}\w+) \(.*?\): ", line):
            yield f"repeats the type of {found[1]}, which the signature has"
    for kind, name in entries(thing.docstring.parse("google")):
        if not re.fullmatch(r"[\w.]+", name):
            yield f"lists {name!r} as one of its {kind}; each takes an entry of its own"
        elif kind == "attributes" and name not in thing.all_members:
            yield f"lists {name!r}, which is none of its attributes"


def faults(folder):
    """What is wrong with the docstrings of a folder of the project, "file:line: what" each."""
    where, name = (ROOT / "package", "deq_fusion") if folder == "package" else (ROOT, folder)
    logger, kept = logging.getLogger("griffe"), _Kept()
    logger.addHandler(kept)
    try:
        own = [
            f"{thing.relative_filepath}:{thing.docstring.lineno}: {thing.name} {fault}"
            for thing in documented(griffe.load(name, search_paths=[where]))
            for fault in faults_of(thing)
        ]
    finally:
        logger.removeHandler(kept)
    return kept.messages + own


@pytest.mark.parametrize("folder", CHECKED)
def test_docstrings_list_what_there_is_one_an_entry(folder):
    found = faults(folder)
    assert not found, "\n".join(found)


def test_the_check_finds_every_kind_of_fault(tmp_path, monkeypatch):
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "__init__.py").write_text(
        '''"""What is bad."""

def f(a: int, b: int) -> None:
    """One function.

    Args:
        a, b: two in one entry.
        c: not there.
        b (int): with its type.

    Raises:
        ValueError, TypeError: two in one entry.
    """

class C:
    """One class.

    Attributes:
        here: there.
        gone: not there.
    """

    here = 1
'''
    )
    monkeypatch.setattr(f"{__name__}.ROOT", tmp_path)
    found = "\n".join(faults("bad"))
    for fault in (
        "begins with What",
        "'a, b' does not appear in the function signature",
        "'c' does not appear in the function signature",
        "repeats the type of b",
        "'ValueError, TypeError' as one of its raises",
        "lists 'gone'",
    ):
        assert fault in found
    assert "here'" not in found
