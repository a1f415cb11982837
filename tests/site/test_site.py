"""The site: it builds without a warning, its links lead somewhere, its search knows every page, its reference every public name."""

from __future__ import annotations

import html.parser
import importlib
import json
import os
import pathlib
import re
import subprocess
import sys
import urllib.parse

import pytest

import dualrev

ROOT = pathlib.Path(__file__).parent.parent.parent
#: Modules whose public names are in the reference one by one; the imperative face has PyTorch's names, which stand in NAMES.md.
MODULES = ("estimators", "modes", "sparse", "testing")
NOT_A_NAME = {"errors", "estimators", "policies", "sparse", "testing", "time_model", "cotangents"}


class Page(html.parser.HTMLParser):
    """What a page refers to, and what can be referred to in it."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.links: set[str] = set()
        self.anchors: set[str] = {""}
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for name, value in attrs:
            if name in ("href", "src") and value and tag != "link":
                self.links.add(value)
            elif name in ("id", "name") and value:
                self.anchors.add(value)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--config-file", "papers/mkdocs.yml"]
    subprocess.run([*command, "--site-dir", str(folder)], check=True, cwd=ROOT, env=os.environ | {"NO_MKDOCS_2_WARNING": "1"})
    return folder


@pytest.fixture(scope="module")
def pages(site: pathlib.Path) -> dict[str, Page]:
    return {path.relative_to(site).as_posix(): Page(path.read_text()) for path in site.rglob("*.html") if path.name != "404.html"}


def test_links_lead_somewhere(site: pathlib.Path, pages: dict[str, Page]) -> None:
    broken, count = [], 0
    for name, page in pages.items():
        for link in page.links:
            parts = urllib.parse.urlsplit(link)
            if parts.scheme or parts.netloc:
                continue
            count += 1
            path = urllib.parse.unquote(parts.path)
            target = (site / name).parent.joinpath(path).resolve().relative_to(site.resolve()).as_posix() if path else name
            target = "index.html" if target == "." else target
            if not (site / target).exists():
                broken.append(f"{name}: {link}")
            elif target in pages and urllib.parse.unquote(parts.fragment) not in pages[target].anchors | {"__comments"}:
                broken.append(f"{name}: {link} has no such place")
    assert broken == []
    assert count > 1000


def test_nothing_is_loaded_from_elsewhere(pages: dict[str, Page]) -> None:
    """A page shows the same without a network: no font, script or picture stands on another server."""
    outside = {link for page in pages.values() for link in page.links if link.startswith(("http:", "https:", "//"))}
    assert not {link for link in outside if link.endswith((".js", ".css", ".png", ".svg"))}


def test_search_knows_every_page(site: pathlib.Path, pages: dict[str, Page]) -> None:
    index = json.loads((site / "search" / "search_index.json").read_text())["docs"]
    assert {entry["location"].partition("#")[0] or "index.html" for entry in index} == set(pages)
    found = {entry["location"] for entry in index if "where_nan" in entry["title"]}
    assert "reference/inspection.html#dualrev.where_nan" in found


def public_names() -> list[str]:
    found = [f"dualrev.{name}" for name in dualrev.__all__ if name not in NOT_A_NAME]
    for name in MODULES:
        module = importlib.import_module(f"dualrev.{name}")
        names = getattr(module, "__all__", None)
        if names is None:
            names = [key for key, value in vars(module).items() if not key.startswith("_")
                     and (getattr(value, "__module__", "") or "").startswith(f"dualrev.{name}")]
        found += [f"dualrev.{name}.{key}" for key in names if not key.endswith("Error")]  # those are all in dualrev.errors
    errors = [key for key, value in vars(dualrev.errors).items()
              if isinstance(value, type) and issubclass(value, dualrev.errors.DualrevError) and not key.startswith("_")]
    return found + [f"dualrev.errors.{key}" for key in errors]


def test_reference_has_every_public_name(pages: dict[str, Page]) -> None:
    described = {anchor for name, page in pages.items() if name.startswith("reference/") for anchor in page.anchors}
    assert [name for name in public_names() if name not in described] == []


def test_formulas_are_formulas(site: pathlib.Path) -> None:
    """No role or command of LaTeX is left in what is read."""
    page = (site / "reference" / "derivatives.html").read_text()
    text = re.sub(r'<details class="mkdocstrings-source".*?</details>', "", page, flags=re.DOTALL)  # where docstrings stand as they are
    assert "<math" in text and ":math:" not in text and ":func:" not in text and "arithmatex" not in text


def test_pictures_are_made_by_the_build(site: pathlib.Path) -> None:
    assert {path.name for path in (site / "pictures").iterdir()} == {
        "arrow.svg", "drawing.svg", "gain-dark.svg", "gain-light.svg", "timeline.svg"}
    assert not list((ROOT / "papers" / "guide").rglob("*.svg")) and not list((ROOT / "papers" / "guide").rglob("*.png"))
