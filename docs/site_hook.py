"""Adds to the site the figures of experiments/results/, and room for wide tables.

Pages link to figures in the repository, where a reader of the source finds them.
"""

import pathlib

from mkdocs.structure.files import File

RESULTS = pathlib.Path(__file__).parents[1] / "experiments" / "results"
SITE = "assets/results"
WIDE = ("models.md", "legality.md")  # without a table of contents beside them


def on_files(files, config, **_):
    """Copy every figure into the site; mkdocs calls this once."""
    for path in sorted(RESULTS.glob("*.png")):
        files.append(File.generated(config, f"{SITE}/{path.name}", abs_src_path=str(path)))
    return files


def on_page_markdown(markdown: str, page, **_) -> str:
    """Point a page's links to the copies; mkdocs calls this for every page."""
    if page.file.src_uri in WIDE:
        page.meta["hide"] = ["toc"]
    return markdown.replace("](../experiments/results/", f"]({SITE}/")
