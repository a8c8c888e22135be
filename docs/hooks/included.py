"""Pages whose text is elsewhere in the repository, and the list of the pages of results."""

import posixpath
import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[2]
PAGES = {  # page -> the file that it shows
    "benchmarks/affect.md": "datasets/affect/README.md",
    "benchmarks/brca.md": "datasets/brca/README.md",
    "benchmarks/imdb.md": "datasets/imdb/README.md",
    "benchmarks/synthetic.md": "datasets/synthetic/README.md",
    "benchmarks/tcga.md": "datasets/tcga/README.md",
    "benchmarks/vqa.md": "datasets/vqa/README.md",
    "changelog.md": "CHANGELOG.md",
    "contributing.md": "CONTRIBUTING.md",
    "results.md": "RESULTS.md",
}
ORDER = (
    "protocol digits omics mosi films vqa paper_models robustness ablation convergence gates cost"
).split()
WHERE = {source: page for page, source in PAGES.items()} | {"README.md": "index.md"}
NOTEBOOK = re.compile(r"docs/(notebooks/\w+)\.py")
LINK = re.compile(r"\[(?P<text>[^\]]*)\]\((?!\w+:|#)(?P<target>[^)#\s]+)(?P<anchor>#[^)]*)?\)")


def on_config(config: MkDocsConfig) -> None:
    """Lists what docs/results holds below the page of results."""
    (results,) = (entry["Results"] for entry in config.nav if "Results" in entry)
    for page in sorted((ROOT / "docs/results").glob("*.md"), key=place):
        heading = re.search("^# (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
        results.append({heading[1]: f"results/{page.name}"})


def place(page: Path) -> tuple[int, str]:
    """Returns where a page of results stands among the others; those not in ORDER come last."""
    return ORDER.index(page.stem) if page.stem in ORDER else len(ORDER), page.stem


def on_files(files: Files, config: MkDocsConfig) -> None:
    """Adds the pages of other files' text."""
    for page, source in PAGES.items():
        text = (ROOT / source).read_text(encoding="utf-8")
        files.append(File.generated(config, page, content=moved(text, source, page)))


def on_page_markdown(markdown: str, page: Page, **_: object) -> str:
    """Returns a page's text with links to files of the project, as they are on disk, to pages."""
    if page.file.src_uri in PAGES or page.file.generated_by:
        return markdown
    return moved(markdown, f"docs/{page.file.src_uri}", page.file.src_uri)


def moved(text: str, source: str, page: str) -> str:
    """Returns text with its links as they are from a page; of those without a page, the words."""

    def link(match: re.Match[str]) -> str:
        words, anchor = match["text"], match["anchor"] or ""
        target = posixpath.normpath(posixpath.join(posixpath.dirname(source), match["target"]))
        target = NOTEBOOK.sub(r"docs/\1.md", target)
        target = WHERE.get(target, target.removeprefix("docs/") if target[:5] == "docs/" else "")
        if not target:
            return words
        return f"[{words}]({posixpath.relpath(target, posixpath.dirname(page) or '.')}{anchor})"

    # a list right below its sentence is none to Python-Markdown, as it is to GitHub
    return re.sub(r"^(\w.*)\n(?=- )", r"\1\n\n", LINK.sub(link, text), flags=re.MULTILINE)
