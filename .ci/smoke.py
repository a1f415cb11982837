"""The installed package, from outside its checkout: ``python smoke.py README.md`` runs the examples there."""

from __future__ import annotations

import doctest
import importlib.resources
import pathlib
import sys

import dualrev

readme = pathlib.Path(sys.argv[1]).resolve()
installed = pathlib.Path(dualrev.__file__).resolve()
if readme.parent in installed.parents:
    sys.exit(f"dualrev is imported from the checkout, {installed}: run this in another directory, with the wheel installed")
package = importlib.resources.files("dualrev")
for name in ("py.typed", "rules/COVERAGE.md", "eager/NAMES.md"):
    if not package.joinpath(name).is_file():
        sys.exit(f"the wheel lacks dualrev/{name}")
examples = doctest.DocTestParser().get_doctest(readme.read_text(), {}, readme.name, str(readme), 0)
results = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE).run(examples)
print(f"dualrev {dualrev.__version__} of {installed.parent}: {results.attempted} examples of the README, {results.failed} failed")
sys.exit(bool(results.failed) or results.attempted < 15)
