"""Repository hygiene: names and sizes of modules, and pages for contributors that name files."""

import ast
import pathlib
import pkgutil
import re

import pytest
import yaml

ROOT = pathlib.Path(__file__).parent.parent
MODULES = sorted(ROOT.glob("miras/**/*.py"))
GUIDES = [
    ROOT / "CONTRIBUTING.md",
    ROOT / "CHANGELOG.md",
    *sorted(ROOT.glob("docs/decisions/*.md")),
    *ROOT.glob("docs/architecture.md"),
]
SECTIONS = {"Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"}


def _named(page):
    """The paths of files and folders that a page names in code."""
    folders = "miras|tests|docs|benchmarks|experiments"
    return re.findall(rf"`((?:{folders})/[\w./-]*)`", page.read_text())


def test_no_module_is_long():
    lengths = {path: len(path.read_text().splitlines()) for path in MODULES}
    assert not {path: length for path, length in lengths.items() if length > 400}


def test_no_module_is_a_drawer():
    drawers = {"utils", "util", "helpers", "common", "misc"}
    assert not [path for path in MODULES if drawers & {*path.parts, path.stem}]


def test_a_class_name_means_one_thing():
    classes = [
        (node.name, str(path.relative_to(ROOT)))
        for path in MODULES
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.ClassDef)
    ]
    first = dict(reversed(classes))
    assert not [(name, first[name], path) for name, path in classes if first[name] != path]


@pytest.mark.parametrize("page", GUIDES, ids=lambda page: page.name)
def test_a_guide_names_files_that_exist(page):
    for path in _named(page):
        assert (ROOT / path).exists(), path
    for target in re.findall(r"\]\((?!https?://|#)([^)#]+)", page.read_text()):
        assert (page.parent / target).exists(), target


def test_every_decision_is_in_the_index_and_the_site():
    index = (ROOT / "docs" / "decisions" / "index.md").read_text()
    site = (ROOT / "mkdocs.yml").read_text()
    pages = [page.name for page in (ROOT / "docs" / "decisions").glob("*.md")]
    for name in pages:
        assert f"decisions/{name}" in site
        assert name == "index.md" or f"]({name})" in index


def test_the_changelog_has_versions_and_categories():
    text = (ROOT / "CHANGELOG.md").read_text()
    versions = re.findall(r"^## (.*)$", text, re.MULTILINE)
    assert versions[0] == "Unreleased"
    assert all(re.fullmatch(r"\d+\.\d+\.\d+( - \d{4}-\d\d-\d\d)?", v) for v in versions[1:])
    assert set(re.findall(r"^### (.*)$", text, re.MULTILINE)) <= SECTIONS


def test_the_changelog_names_import_paths_that_exist():
    rows = re.findall(r"^\| `miras\..*` \| (.*) \|$", (ROOT / "CHANGELOG.md").read_text(), re.M)
    assert rows
    for name in re.findall(r"`(miras\.[\w.]+)`", " ".join(rows)):
        assert pkgutil.resolve_name(name) is not None


def test_hooks_are_local_and_types_are_checked_on_push():
    config = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())
    assert [repo["repo"] for repo in config["repos"]] == ["local"]
    hooks = {hook["id"]: hook for repo in config["repos"] for hook in repo["hooks"]}
    assert hooks["pyright"]["stages"] == ["pre-push"]
    assert all(hook["language"] == "system" for hook in hooks.values())
