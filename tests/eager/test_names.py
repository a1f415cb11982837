"""The page of PyTorch's names is current, and so are the lists behind it."""

from __future__ import annotations

import inspect
import pkgutil
from typing import Any

import pytest
from against_torch import in_both
from offered import LIST, PAGE, listing, offered, release, text

from dualrev.eager import ops


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
