"""The installed package, outside its checkout: ``python smoke.py`` uses it, ``python smoke.py README.md`` runs the examples there."""

from __future__ import annotations

import doctest
import importlib.resources
import pathlib
import sys
from importlib import metadata

import jax.numpy as jnp

import dualrev
from dualrev import eager

checkout = pathlib.Path(__file__).resolve().parents[1]
installed = pathlib.Path(dualrev.__file__).resolve()
if checkout in installed.parents:
    sys.exit(f"dualrev is imported from the checkout, {installed}: run this in another directory, with the wheel installed")
package = importlib.resources.files("dualrev")
for name in ("py.typed", "rules/COVERAGE.md", "eager/NAMES.md"):
    if not package.joinpath(name).is_file():
        sys.exit(f"the wheel lacks dualrev/{name}")
if dualrev.__version__ != metadata.version("dualrev"):
    sys.exit(f"dualrev.__version__ is {dualrev.__version__}, that of the distribution {metadata.version('dualrev')}")
if len(sys.argv) == 1:
    hessian = dualrev.hessian(lambda x: jnp.sum(x[1:] * x[:-1] ** 2), sparse=True, format="dense")(jnp.arange(1.0, 4.0))
    x = eager.tensor([3.0], requires_grad=True)
    (x**2).sum().backward()
    if hessian.tolist() != [[4.0, 2.0, 0.0], [2.0, 6.0, 4.0], [0.0, 4.0, 0.0]] or x.grad.tolist() != [6.0]:
        sys.exit(f"wrong derivatives: {hessian}, {x.grad}")
    print(f"dualrev {dualrev.__version__} of {installed.parent}, Python {sys.version.split()[0]}: a sparse Hessian and a backward pass")
    sys.exit()
readme = pathlib.Path(sys.argv[1]).resolve()
examples = doctest.DocTestParser().get_doctest(readme.read_text(), {}, readme.name, str(readme), 0)
results = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE).run(examples)
print(f"dualrev {dualrev.__version__} of {installed.parent}: {results.attempted} examples of the README, {results.failed} failed")
sys.exit(bool(results.failed) or results.attempted < 15)
