"""The page of PyTorch's names is current, and so are the lists behind it."""

from __future__ import annotations

import ast
import inspect
import pathlib
import pkgutil
from typing import Any

import pytest
from against_torch import in_both
from offered import LIST, PAGE, listing, offered, release, text

from dualrev import eager
from dualrev.eager import graph, ops
from dualrev.eager.graph.tensor import Tensor
from dualrev.eager.ops.registry import FUNCTIONS


def test_the_list_of_names_is_that_of_its_release() -> None:
    if release() is None:
        pytest.skip("PyTorch is not installed; the committed list is used")
    if f"PyTorch {release()} " not in LIST.read_text().splitlines()[0]:
        pytest.skip("the list is of another release of PyTorch")
    if LIST.read_text() != (current := listing()):
        LIST.write_text(current)
        pytest.fail(f"{LIST.name} was stale; it has been written again")


def test_the_page_of_names_is_current() -> None:
    if PAGE.read_text() != (current := text()):
        PAGE.write_text(current)
        pytest.fail(f"{PAGE.name} was stale; it has been written again")


@pytest.mark.thorough
def test_functions_of_numpy_and_second_names() -> None:
    def program(t: Any) -> list[Any]:
        x, y = t.tensor([[0.5, -1.0], [2.0, 3.0]], requires_grad=True), t.tensor([[1.0, 0.3], [-2.0, 2.0]])
        outs = [t.inner(x, y), t.fmax(x, y), t.fmin(x, y), t.copysign(x, y), t.logaddexp2(x, y), t.diff(x), x.diff(dim=0), x.tile(2, 1),
                t.tile(x, (2,)), t.rot90(x), x.fliplr(), t.flipud(x), x.matrix_power(3), x.ravel(), x.adjoint(), x.mH, x.H,
                t.hstack([x, y]), t.vstack([x[0], y[1]]), t.dist(x, y), x.swapdims(0, 1), x.moveaxis(0, 1), t.arctan2(x, y),
                t.arcsinh(x), *t.meshgrid(x[0], y[0], indexing="ij"), *t.meshgrid(x[0], y[0], indexing="xy"), t.ger(x[0], y[0])]
        grads = [t.autograd.grad((o * o).sum(), x, allow_unused=True)[0] for o in outs if o.requires_grad]
        holes = t.tensor([1.0, float("nan"), float("inf")])
        return [outs, [g for g in grads if g is not None], sum(g is None for g in grads), t.nan_to_num(holes, 2.0, 3.0),
                holes[:2].nansum(), holes[:2].nanmean(), t.isclose(x, x + 1e-9), t.greater(x, y), t.less_equal(x, y), t.not_equal(x, y),
                t.heaviside(y, y), x.nbytes, x.itemsize, x.nelement(), x.ndimension(), x.is_complex(), x.is_cpu, t.is_nonzero(y[0, 0]),
                x.new_tensor([1, 2]), t.atleast_1d(y[0, 0]), t.atleast_2d(y[0])]

    in_both(program)


def test_what_tutorials_use_is_offered() -> None:
    found = {place: set(have) for place, (have, _) in offered().items()}
    assert found["torch.nn"] >= {"Linear", "Conv2d", "LSTM", "BatchNorm2d", "MultiheadAttention", "CrossEntropyLoss", "Sequential"}
    assert found["torch.optim"] >= {"SGD", "Adam", "AdamW", "RMSprop", "Adagrad"}
    assert found["torch"] >= {"save", "load", "no_grad", "where"}
    assert sum(map(len, found.values())) > 700


def test_all_modules_that_register_operations_are_listed() -> None:
    listed = {module.__name__ for module in ops.MODULES}
    found = {f"{ops.__name__}.{m.name}" for m in pkgutil.iter_modules(ops.__path__)}
    assert listed <= found
    registers = ("@function\n", "@both\n", "@method\n", "Tensor.", "FUNCTIONS[")
    for name in found - listed:
        source = inspect.getsource(pkgutil.resolve_name(name))
        assert not any(f"\n{line}" in source for line in registers), name


def test_all_methods_of_tensors_are_declared() -> None:
    """What editors and type checkers see of a tensor is what it has."""
    stubs = pathlib.Path(graph.__file__).parent.glob("*methods.pyi")
    classes = [node for stub in stubs for node in ast.parse(stub.read_text()).body
               if isinstance(node, ast.ClassDef) and not any(ast.unparse(base) == "NamedTuple" for base in node.bases)]
    declared = {x.name if isinstance(x, ast.FunctionDef) else ast.unparse(x.target) for c in classes for x in c.body
                if isinstance(x, (ast.FunctionDef, ast.AnnAssign))}
    here = ast.parse(inspect.getsource(Tensor)).body[0]
    assert isinstance(here, ast.ClassDef)
    own = {x.name for x in here.body if isinstance(x, ast.FunctionDef)} | {"name"}
    assert {n for n in declared if not n.startswith("_")} == {n for n in vars(Tensor) if not n.startswith("_")} - own
    assert {n for n in declared if n.startswith("_")} <= set(vars(Tensor))


def test_all_functions_are_declared() -> None:
    """What editors and type checkers see of ``torch`` is what it has; ``relu`` stands in ``nn.functional``."""
    bodies = [ast.parse(stub.read_text()).body for stub in pathlib.Path(eager.__file__).parent.glob("*.pyi")]
    declared = {node.name for body in bodies for node in body if isinstance(node, (ast.FunctionDef, ast.ClassDef))}
    imported = {a.asname for body in bodies for node in body if isinstance(node, ast.ImportFrom) for a in node.names if a.asname}
    assert declared | imported | {"relu"} == set(FUNCTIONS)
