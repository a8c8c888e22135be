"""Every block of code in the documentation runs, or carries a label that says why it does not.

The blocks of a page run in order: Python in one namespace, commands in this process. A block below
`<!-- not run: WHY -->` does not run: of its Python the imports must be there, and of its commands
every flag must stand in the command's own help. One below `<!-- run -->` runs in any folder.
"""

import ast
import contextlib
import functools
import importlib
import io
import re
import runpy
import shlex
import sys
import warnings
from pathlib import Path
from typing import NamedTuple

import click
import pytest
import torch
import torch.distributed.run

from deq_fusion.command import main

ROOT = Path(__file__).parents[1]
LABELS = {  # of folders whose blocks all carry one, but for those below `<!-- run -->`
    ROOT / "docs/results": "these commands made the tables, in hours",
    ROOT / "datasets": "it needs the data",
}
PAGES = [*ROOT.glob("docs/**/*.md"), *ROOT.glob("datasets/*/README.md"), ROOT / "CONTRIBUTING.md"]
SLOW = ("docs/own_data.md",)
BLOCK = re.compile(
    r"(?:^ *<!-- (?:not run: (?P<why>[^\n]+)|(?P<run>run)) -->\n)?"
    r"^(?P<indent> *)```(?P<kind>[^\n]*)\n(?P<text>.*?)^(?P=indent)```$",
    re.MULTILINE | re.DOTALL,
)
FILE = re.compile(r"^<!-- the file (\S+) -->\n```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)
OURS = "deq-fusion", "python", "torchrun", "dask"  # whose flags are checked
OTHERS = "make", "pip", "sbatch", ".ci/run"  # what these do is not to be tried


class Block(NamedTuple):
    """A block of code; `why` it does not run, or None."""

    kind: str
    text: str
    why: str | None

    @property
    def commands(self) -> list[list[str]]:
        """Its lines, in words, where it is one of commands."""
        if self.kind not in ("console", "bash", "sh", ""):
            return []
        lines = self.text.replace("\\\n", " ").splitlines()
        commands = [shlex.split(line, comments=True) for line in lines if line.strip()]
        known = [line for line in commands if line and line[0] in OURS + OTHERS]
        assert self.kind == "" or len(known) == len([line for line in commands if line]), self
        return known


def blocks_of(page: Path) -> list[Block]:
    found = []
    label = next((why for folder, why in LABELS.items() if folder in page.parents), None)
    for match in BLOCK.finditer(page.read_text(encoding="utf-8")):
        text = re.sub(f"^{match['indent']}", "", match["text"], flags=re.MULTILINE)
        found.append(Block(match["kind"], text, match["why"] or (None if match["run"] else label)))
    return found


def check_imports(code: str) -> None:
    """A block that does not run is Python, and what it imports at its top is there."""
    imports = [s for s in ast.parse(code).body if isinstance(s, ast.Import | ast.ImportFrom)]
    exec(compile(ast.Module(imports, []), "imports", "exec"), {})


def check_command(command: list[str]) -> None:
    """Every flag stands in the help of its program; make has the target, setup.py the extra."""
    program, *words = command
    if program == "make":
        targets = re.findall("^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.M)
        assert next(word for word in words if "=" not in word) in targets
    if program == "pip":
        for extra in re.findall(r"\[(\w+)\]", " ".join(words)):
            assert f'"{extra}": ' in (ROOT / "setup.py").read_text(encoding="utf-8")
    if program in OTHERS:
        return
    if "-m" in words and program != "deq-fusion":
        cut = words.index("-m")
        check_flags(help_of_module(words[cut + 1]), words[cut + 2 :])
        words = words[:cut]
    if program == "torchrun":
        check_flags(torch.distributed.run.get_args_parser().format_help(), words)
    elif program == "dask":
        cli = importlib.import_module(f"distributed.cli.dask_{words[0]}").main
        check_flags(cli.get_help(click.Context(cli)), words)
    elif program == "deq-fusion":
        parts = [words[0], *words[1 : 1 + (words[0] == "prepare")]]
        check_flags(help_of_command(*parts), words)


def check_flags(told: str, words: list[str]) -> None:
    there = set(re.findall(r"(?<![\w-])--?[a-zA-Z][\w-]*", told))
    for flag in (word.partition("=")[0] for word in words if word.startswith("-")):
        assert flag in there, f"{flag} is not among {sorted(there)}"


@functools.cache
def help_of_command(*parts: str) -> str:
    return printed(lambda: main([*parts, "--help"]))


@functools.cache
def help_of_module(name: str) -> str:
    return printed(lambda: runpy.run_module(name, run_name="__main__", alter_sys=True), "--help")


def printed(run, *arguments: str) -> str:
    before = sys.argv, sys.path[:]
    sys.argv = ["program", *arguments]
    try:
        with contextlib.redirect_stdout(io.StringIO()) as told, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # runpy's, of a module that is imported already
            with pytest.raises(SystemExit) as end:
                run()
    finally:
        sys.argv, sys.path[:] = before
    assert end.value.code in (None, 0)
    return told.getvalue()


def run_command(command: list[str]) -> None:
    check_command(command)
    program, *words = command
    if program in OTHERS:
        return
    assert program == "deq-fusion", f"a label must say why this does not run: {command}"
    path = sys.path[:]
    try:
        main(words)
    except SystemExit as end:
        assert end.code in (None, 0), command
    finally:
        sys.path[:] = path


def marked(pages):
    for page in sorted(pages):
        name = page.relative_to(ROOT).as_posix()
        if blocks_of(page):
            yield pytest.param(page, id=name, marks=[pytest.mark.slow] * (name in SLOW))


@pytest.mark.parametrize("page", list(marked(PAGES)))
def test_the_blocks_of_a_page(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    scope = {"__name__": "docs"}
    for block in blocks_of(page):
        if block.kind == "python" and block.why is None:
            exec(compile(block.text, page.name, "exec"), scope)
        elif block.kind == "python":
            check_imports(block.text)
        for command in block.commands:
            run_command(command) if block.why is None else check_command(command)


def test_a_block_that_shows_a_file_is_that_file():
    shown = [(p, *found) for p in PAGES for found in FILE.findall(p.read_text(encoding="utf-8"))]
    assert len(shown) == 3
    for page, name, text in shown:
        assert text == (ROOT / name).read_text(encoding="utf-8"), f"{page}: copy {name} again"


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:The tensor attributes .*gru:UserWarning")
def test_the_network_of_sequences_can_be_exported_as_its_page_says(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    scope, blocks = {"__name__": "docs"}, blocks_of(ROOT / "docs/plug_in.md")
    texts = [block.text for block in blocks if block.kind == "python" and block.why is None]
    last = next(i for i, text in enumerate(texts) if "class LastState" in text)
    for text in texts[: last + 1]:
        exec(compile(text, "plug_in.md", "exec"), scope)
    network = scope["Speech"](unroll=4).eval()
    given = tuple(scope[name] for name in ("words", "long", "lengths", "present"))
    sizes = ({0: torch.export.Dim("batch")},) * len(given)
    program = torch.export.export(network, given, dynamic_shapes=sizes)
    more = tuple(torch.cat([x, x.flip(0)]) for x in given)
    torch.testing.assert_close(program.module()(*more), network(*more))


def test_every_block_is_of_a_known_kind():
    kinds = {block.kind for page in PAGES for block in blocks_of(page)}
    assert kinds <= {"python", "console", "bash", "sh", "math", "text", ""}


def test_a_flag_that_is_not_there_is_found():
    with pytest.raises(AssertionError, match="--seeds-of is not among"):
        check_command(["deq-fusion", "compare", "--runs", "3", "--seeds-of", "1"])
