"""The README and the pages of docs/: their size, links and commands; the site, where mkdocs is installed."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.once

ROOT = Path(__file__).resolve().parents[2]
README = ROOT / "README.md"
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])


def anchors(path):
    """Anchors of the headings of a page, as code hosts and mkdocs make them."""
    headings = re.findall(r"^#+ (.+)$", path.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}


def broken_links(path):
    """Links of a page to files or headings that do not exist."""
    text = re.sub(r"```.*?```", "", path.read_text(encoding="utf-8"), flags=re.DOTALL)
    for link in re.findall(r"\]\(\s*([^)\s]+)\)", text):
        if link.startswith(("https://", "http://")):
            continue
        name, _, anchor = link.partition("#")
        target = path.parent / name if name else path
        if link == "changelog.md":  # the site makes this page of CHANGELOG.md
            continue
        if not target.exists() or (anchor and anchor not in anchors(target)):
            yield link


def test_the_readme_is_short():
    lines = README.read_text(encoding="utf-8").splitlines()
    assert len(lines) <= 130
    assert [line for line in lines if len(line) > 110] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_somewhere(page):
    assert list(broken_links(page)) == []


@pytest.mark.parametrize("page", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_figure_has_alternative_text(page):
    figures = re.findall(r"!\[([^\]]*)\]\((?!https:)", page.read_text(encoding="utf-8"))
    assert all(len(text) > 20 for text in figures)


@pytest.mark.parametrize("page", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_scripts_and_modules_that_a_page_names_exist(page):
    folders = "scripts|benchmarks|labo_fairseq|tests|configs|constraints|results|docs"
    text = page.read_text(encoding="utf-8").partition("\n## Add a ")[0]  # the recipes name files that a reader makes
    named = re.findall(rf"\b((?:{folders})/[\w/.-]+)", text)
    placeholder = re.compile("[A-Z]{2}")  # as in configs/CORPUS.yaml
    assert [name for name in named if not placeholder.search(name) and not (ROOT / name.rstrip(".")).exists()] == []


def test_every_page_is_in_the_navigation():
    navigation = (ROOT / "mkdocs.yml").read_text(encoding="utf-8").partition("\nnav:")[2]
    names = {path.relative_to(ROOT / "docs").as_posix() for path in (ROOT / "docs").rglob("*.md")}
    assert names | {"changelog.md"} == set(re.findall(r"[\w/-]+\.md", navigation))


def test_the_site_builds_without_a_warning(tmp_path):
    pytest.importorskip("mkdocs")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(tmp_path)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
    )
    assert done.returncode == 0, done.stdout
    assert "hypothesis-probabilities.png" not in (tmp_path / "robustness/index.html").read_text(encoding="utf-8")
    assert (tmp_path / "results/multi30k/grid/curves.png").is_file()
