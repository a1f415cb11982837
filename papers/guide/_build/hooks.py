"""What mkdocs does not do by itself: pictures, pages that stand elsewhere in the repository, notebooks, formulas."""

from __future__ import annotations

import pathlib
import sys
from typing import Any

sys.path[:0] = [str(pathlib.Path(__file__).parent), str(pathlib.Path(__file__).parents[3])]

import formulas  # noqa: E402
import notebooks  # noqa: E402
import pages  # noqa: E402
import pictures  # noqa: E402
from mkdocs.structure.files import File  # noqa: E402

GUIDE = pathlib.Path(__file__).parent.parent
RESULTS = "<!-- results -->"


def on_files(files: Any, config: Any) -> Any:
    found: dict[str, str | bytes] = dict(pictures.made())
    found |= {"operations.md": pages.operations(), "changelog.md": pages.changelog(), "ops.md": pages.guide("ops"),
              "modes.md": pages.guide("modes")}
    found["reproduced_papers.md"], figures = pages.papers()
    results, plots = pages.results()
    found["benchmarks.md"] = (GUIDE / "benchmarks.md").read_text().replace(RESULTS, results)
    found |= figures | plots
    for path in sorted((GUIDE / "notebooks").glob("*.ipynb")):
        found[f"notebooks/{path.stem}.md"], shown = notebooks.page_of(path)
        found |= shown
    for name, content in found.items():
        if name in files.src_uris:
            files.remove(files.src_uris[name])
        files.append(File.generated(config, name, content=content))
    return files


def on_page_content(html: str, **kwargs: Any) -> str:
    return formulas.with_mathml(html)
