"""Citations: they name entries of ``papers/references.bib`` by their keys, as in ``[Key, eq. n]``, and each entry is cited."""

from __future__ import annotations

import pathlib
import re
from collections.abc import Iterator

import pytest

ROOT = pathlib.Path(__file__).parents[1]
PAGES = sorted([ROOT / "README.md", *[path for folder in ("dualrev", "papers", "benchmarks", "tests") for kind in ("*.py", "*.md")
                                      for path in (ROOT / folder).rglob(kind)]])
ENTRIES = re.findall(r"^@\w+\{([^,\s]+),(.*)\}$", (ROOT / "papers" / "references.bib").read_text(encoding="utf-8"), re.M)
KEYS = {key for key, _ in ENTRIES}
YEAR = r"(?:1[6-9]|20)\d\d"
WITHOUT_YEAR = "|".join(sorted(key for key in KEYS if not key[-4:].isdigit()))
#: One reference of a bracket: its key, and then where.
KEY = re.compile(rf"(?:[A-Za-z]\w*{YEAR}|{WITHOUT_YEAR})(?=$|,)")
#: A reference by names and year, such as *Euler and Newton 1744*.
NAMES = re.compile(rf"((?:[a-z]+ )?[^\W\d_][\w'-]+(?:,? (?:&|and) |, | ))+(et al\.,? )?({YEAR})\b")


def citations(text: str) -> Iterator[tuple[str, int]]:
    """Each reference that stands in brackets, on at most two lines, and its line."""
    for found in re.finditer(r"\[([^][\n]*(?:\n[^][\n]*)?)\]", text):
        for reference in re.sub(r"\s+", " ", found[1]).split(";"):
            if KEY.match(reference := reference.strip()) or NAMES.match(reference):
                yield reference, text.count("\n", 0, found.start()) + 1


CITED = [(path.relative_to(ROOT), line, reference) for path in PAGES if path != pathlib.Path(__file__)
         for reference, line in citations(path.read_text(encoding="utf-8"))]


def test_each_key_that_is_cited_is_an_entry() -> None:
    missing = [f"{path}:{line}: [{reference}] is not in papers/references.bib" for path, line, reference in CITED
               if (key := KEY.match(reference)) and key[0] not in KEYS]
    assert not missing, "\n".join(missing)


def test_works_are_cited_by_their_keys() -> None:
    named = [f"{path}:{line}: [{reference}]: cite by the key, as in [Key, eq. n]" for path, line, reference in CITED
             if not KEY.match(reference)]
    assert not named, "\n".join(named)


def test_each_entry_is_cited() -> None:
    cited = {key[0] for _, _, reference in CITED if (key := KEY.match(reference))}
    reproduced = {path.parent.name for path in (ROOT / "papers").glob("*/run.py")}
    assert KEYS - cited - reproduced == set()


@pytest.mark.parametrize(("text", "expected"), [
    ("``[Euler1744]``", ["Euler1744"]), ("[Euler1744, eq. 3; NewtonEtAl1687]", ["Euler1744, eq. 3", "NewtonEtAl1687"]),
    ("as in [Euler1744,\n    ch. 2].", ["Euler1744, ch. 2"]), ("[Euler and Newton 1744, p. 3]", ["Euler and Newton 1744, p. 3"]),
    ("x[1:] [int, str]", []),
])
def test_what_a_citation_is(text: str, expected: list[str]) -> None:
    found = [reference for reference, _ in citations(text)]
    assert found == expected
    assert all((KEY.match(reference) is None) == (" and " in reference) for reference in found)


def test_entries_are_complete_and_stand_once() -> None:
    keys = [key for key, _ in ENTRIES]
    assert len(keys) == len(KEYS), sorted(key for key in KEYS if keys.count(key) > 1)
    lines = (ROOT / "papers" / "references.bib").read_text(encoding="utf-8").splitlines()
    assert len(lines) == len(keys), "one entry a line"
    for key, fields in ENTRIES:
        assert all(f" {field} = {{" in fields for field in ("author", "title", "year")), key
        assert not key[-4:].isdigit() or f"year = {{{key[-4:]}}}" in fields, key
