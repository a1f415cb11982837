"""Reproductions of papers: their claims hold on small sizes, and their pages say what their results say."""

from __future__ import annotations

import importlib
import json
import pathlib
import re
import sys
from typing import Any

import pytest

from papers import __main__ as command
from papers import reproduction
from papers.reproduction import Outcome, Paper, Progress, Row

FOLDER = pathlib.Path(reproduction.__file__).parent
KEYS = command.keys()


def committed(key: str, kind: str = "") -> Any:
    return json.loads((FOLDER / key / f"result{kind}.json").read_text())


@pytest.mark.thorough
@pytest.mark.promotes  # optax does
@pytest.mark.parametrize("key", KEYS)
def test_claims_hold_on_small_sizes(key: str) -> None:
    """What held when the quick result was committed holds; times are left out, as they depend on the machine."""
    outcome = importlib.import_module(f"papers.{key}.run").run(True, Progress(is_shown=False))
    before = {row["name"]: row for row in committed(key, "-quick")["rows"]}
    assert [row.name for row in outcome.rows] == list(before)
    for row in outcome.rows:
        if "time" not in row.name:
            assert row.holds == before[row.name]["holds"], row
            assert row.ours == pytest.approx(before[row.name]["ours"], rel=max(row.tolerance, 1e-6)), row


@pytest.mark.parametrize("key", KEYS)
def test_pages_say_what_results_say(key: str) -> None:
    result, folder = committed(key), FOLDER / key
    page = (folder / "README.md").read_text()
    assert reproduction.markdown(result["rows"]) in page and result["sentence"] in page
    assert (folder / "figure.png").stat().st_size > 1000 and "<svg" in (folder / "figure.svg").read_text()
    assert importlib.import_module(f"papers.{key}.run").PAPER.key == key
    assert "**Claim.**" in page and "**Here.**" in page


def test_the_table_is_that_of_the_results() -> None:
    assert command.table() in (FOLDER / "README.md").read_text()


def test_keys_are_in_the_references() -> None:
    entries = set(re.findall(r"^@\w+\{(\w+),", (FOLDER / "references.bib").read_text(), re.M))
    assert {key for key in KEYS if key[-4:].isdigit()} <= entries  # a result of our own has no year


def test_unknown_keys_are_told(capsys: pytest.CaptureFixture[str]) -> None:
    assert command.command(["Newton1687"]) == 2
    assert "no reproduction Newton1687" in capsys.readouterr().err


def test_a_missing_extra_is_told_before_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.setitem(sys.modules, "matplotlib.pyplot", None)

    def never(quick: bool, progress: Progress) -> Outcome:
        raise AssertionError("ran without what it needs")

    with pytest.raises(SystemExit, match=r"figures need matplotlib; install the extra: pip install 'dualrev\[papers\]'"):
        reproduction.main(Paper("Euler1744", "Title", "claim", "where", "how"), never, [])


def test_results_that_differ_are_told_and_not_overwritten(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch,
                                                          capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(reproduction, "FOLDER", tmp_path / "papers")
    folder = tmp_path / "papers" / "Euler1744"
    folder.mkdir(parents=True)
    (folder / "README.md").write_text(f"# A page\n\n{reproduction.BEGIN}\n\n{reproduction.END}\n")
    paper = Paper("Euler1744", "Title", "claim", "where", "how")

    def found(ours: float, tolerance: float = 0.1) -> Outcome:
        return Outcome((Row("a number", 3, ours, ours > 2, tolerance),), "A sentence.", lambda figure: figure.subplots().plot([1, 2]))

    assert reproduction.main(paper, lambda quick, progress: found(3.0), []) == 0
    assert "| a number | 3 | 3 | yes |" in (folder / "README.md").read_text() and (folder / "figure.svg").exists()
    assert reproduction.main(paper, lambda quick, progress: found(3.1), []) == 0
    assert reproduction.main(paper, lambda quick, progress: found(1.0), []) == 1
    assert "a number: 1, committed 3.1" in capsys.readouterr().err
    assert json.loads((folder / "result.json").read_text())["rows"][0]["ours"] == 3.1
    assert reproduction.main(paper, lambda quick, progress: found(1.0), ["--accept"]) == 0
    assert "**Verdict: not reproduced.**" in (folder / "README.md").read_text()
