"""Pages that are read from elsewhere in the repository: what is written once is shown once."""

from __future__ import annotations

import json
import pathlib
import re

PAPERS = pathlib.Path(__file__).parent.parent.parent
ROOT = PAPERS.parent
LINK = re.compile(r"(?<!!)\[([^\]\n]+)\]\((?!https?:|#)([^)\s]+)\)")
DETAILS = re.compile(r"<details><summary>(.*?)</summary>")
PROMPT = re.compile(r"^```python\n(?=>>> )", re.MULTILINE)


def of_repository(text: str) -> str:
    """Links to files of the repository, which the site does not have, become their text; examples are sessions."""
    text = LINK.sub(lambda found: found[1], text)
    return PROMPT.sub("```pycon\n", DETAILS.sub(r'<details markdown="block"><summary>\1</summary>', text))


def operations() -> str:
    text = of_repository((ROOT / "dualrev" / "rules" / "COVERAGE.md").read_text())
    return text.replace("# What the table covers", "# Every operation", 1)


def changelog() -> str:
    return of_repository((ROOT / "CHANGELOG.md").read_text())


def guide(folder: str) -> str:
    return of_repository((PAPERS / folder / "README.md").read_text())


def results() -> tuple[str, dict[str, bytes]]:
    """``benchmarks/RESULTS.md`` one heading down, and its pictures."""
    text = of_repository((ROOT / "benchmarks" / "RESULTS.md").read_text())
    pictures = {f"benchmarks/{name}": (ROOT / "benchmarks" / name).read_bytes() for name in re.findall(r"!\[[^\]]*\]\(([^)]+)\)", text)}
    text = text.replace("# Results", "# Programs of all kinds, beside jax, PyTorch and others", 1)
    text = re.sub(r"(!\[[^\]]*\]\()([^)]+)\)", r"\1benchmarks/\2)", text)
    return re.sub(r"^(#+) ", r"#\1 ", text, flags=re.MULTILINE), pictures


def papers() -> tuple[str, dict[str, bytes]]:
    """What each reproduction claims and found, with its picture."""
    parts = ["# Reproduced papers\n", "What each paper claims, what we found, and the picture of it, failures included. "
             "`python -m papers` lists the reproductions, and `python -m papers KEY` runs one in a checkout; its folder `papers/KEY` has all "
             "numbers. Two results are our own.\n"]
    pictures = {}
    for path in sorted(PAPERS.glob("*/result.json")):
        found, key = json.loads(path.read_text()), path.parent.name
        pictures[f"papers/{key}.svg"] = (path.parent / "figure.svg").read_bytes()
        parts.append(f"## {found['title']}\n\n*{key}.* **Claim:** {found['claim']}.\n\n**{found['verdict'].capitalize()}.** {found['sentence']} "
                     f"({found['machine']}; jax {found['jax']})\n\n![{found['title']}](papers/{key}.svg){{ loading=lazy .on-white }}\n")
    return "\n".join(parts), pictures
