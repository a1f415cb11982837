"""Modules as pure functions of arrays, against PyTorch with the same weights, which are read from its safetensors file."""

from __future__ import annotations

import pathlib
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec

import dualrev as dr
from dualrev import eager
from dualrev.eager import func

torch = pytest.importorskip("torch", reason="compared with PyTorch")
saved = pytest.importorskip("safetensors.torch", reason="files of PyTorch's weights")


def sign_of_a_product(t: Any) -> Any:
    """A module with a function that has a derivative of its own, with a frozen parameter and values outside the graph."""

    class Rounded(t.autograd.Function):  # type: ignore[misc, name-defined]
        @staticmethod
        def forward(x: Any) -> Any:
            return x.round()

        @staticmethod
        def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
            ctx.save_for_backward(inputs[0], output)

        @staticmethod
        def backward(ctx: Any, g: Any) -> Any:
            x, y = ctx.saved_tensors
            return g * (1 + x - y)

    class Quantized(t.nn.Module):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.inner, self.outer = t.nn.Linear(3, 4), t.nn.Linear(4, 3)
            self.outer.weight.requires_grad_(False)

        def forward(self, x: Any) -> Any:
            y = Rounded.apply(3 * self.inner(x))
            with t.no_grad():
                scale = self.inner.weight.abs().sum()
            return self.outer(y) * y.detach()[:, :3] * scale

    return Quantized()


class _Language:
    """An embedding that is tied to the last layer, over a transformer."""

    def __new__(cls, t: Any) -> Any:
        class Language(t.nn.Module):  # type: ignore[misc, name-defined]
            def __init__(self) -> None:
                super().__init__()
                self.embed, self.head = t.nn.Embedding(7, 8), t.nn.Linear(8, 7, bias=False)
                self.head.weight = self.embed.weight
                self.block = t.nn.TransformerEncoderLayer(8, 2, 16, batch_first=True, dropout=0.0)
                self.mask = t.triu(t.full((5, 5), float("-inf")), 1)

            def forward(self, x: Any) -> Any:
                return self.head(self.block(self.embed(x), src_mask=self.mask))

        return Language()


#: Modules, each with its input.
MODULES: dict[str, tuple[Callable[[Any], Any], Callable[[Any], Any]]] = dict(
    dense=(lambda t: t.nn.Sequential(t.nn.Linear(3, 5), t.nn.GELU(), t.nn.LayerNorm(5), t.nn.Dropout(0.5), t.nn.Linear(5, 2)).eval(),
           lambda t: t.linspace(-1, 2, 12).reshape(4, 3)),
    statistics=(lambda t: t.nn.Sequential(t.nn.Conv2d(1, 3, 3), t.nn.BatchNorm2d(3), t.nn.ReLU(), t.nn.MaxPool2d(2), t.nn.Flatten()),
                lambda t: t.linspace(-1, 2, 72).reshape(2, 1, 6, 6).sin()),
    recurrent=(lambda t: t.nn.LSTM(3, 4, num_layers=2, bidirectional=True), lambda t: t.linspace(-1, 2, 30).reshape(5, 2, 3)),
    language=(_Language, lambda t: t.tensor([[1, 2, 3, 0, 6], [0, 5, 4, 4, 2]])),
    quantized=(sign_of_a_product, lambda t: t.linspace(-1, 2, 12).reshape(4, 3)),
    normed=(lambda t: t.nn.utils.parametrizations.weight_norm(t.nn.Linear(3, 2)), lambda t: t.linspace(-1, 2, 12).reshape(4, 3)),
    spectral=(lambda t: t.nn.utils.parametrizations.spectral_norm(t.nn.Linear(3, 2)), lambda t: t.linspace(-1, 2, 12).reshape(4, 3)),
)


def leaves(out: Any) -> list[Any]:
    return [x for part in out for x in leaves(part)] if isinstance(out, (tuple, list)) else [out]


@pytest.mark.parametrize("name", [pytest.param(name, marks=pytest.mark.thorough) if name in ("recurrent", "language", "dense", "normed")
                                  else name for name in MODULES])
def test_a_lowered_module_is_pytorchs(name: str, tmp_path: pathlib.Path) -> None:
    make, inputs = MODULES[name]
    torch.manual_seed(0)
    theirs = make(torch)
    saved.save_model(theirs, str(tmp_path / "weights.safetensors"))
    fun, _ = eager.lower(make(eager), inputs(eager))
    params, buffers = fun.load(tmp_path / "weights.safetensors")
    x = jnp.asarray(inputs(torch).numpy())
    wanted = leaves(theirs(inputs(torch)))
    sum((w * w).sum() for w in wanted).backward()
    gradients = {k: p.grad for k, p in theirs.named_parameters()}

    def loss(params: Any) -> Any:
        out, after = fun(params, x, buffers=buffers)
        return sum(jnp.sum(part * part) for part in leaves(out)), (out, after)

    for transform in (dr.grad, jax.grad):
        found, (out, after) = jax.jit(transform(loss, has_aux=True))(params)
        for got, want in zip(leaves(out), wanted, strict=True):
            np.testing.assert_allclose(got, want.detach().numpy(), 1e-4, 1e-5)
        assert found.keys() == gradients.keys()
        for k, g in gradients.items():
            np.testing.assert_allclose(found[k], np.zeros(found[k].shape) if g is None else g.numpy(), 1e-3, 1e-4, err_msg=k)
        for k, b in theirs.named_buffers():
            np.testing.assert_allclose(after[k], b.numpy(), 1e-4, 1e-5, err_msg=k)
    eagerly, _ = fun(params, x, buffers=buffers)
    np.testing.assert_allclose(leaves(eagerly)[0], wanted[0].detach().numpy(), 1e-4, 1e-5)


def test_keys_are_arguments() -> None:
    fun, params = eager.lower(eager.nn.Sequential(eager.nn.Linear(3, 200), eager.nn.Dropout(0.25)), eager.ones(3))
    x = jnp.ones(3, jnp.float32)
    keys = jax.random.split(jax.random.key(3), 4)
    many = jax.vmap(lambda key: fun(params, x, rng=key))(keys)
    one = jax.jit(lambda key: fun(params, x, rng=key))(keys[2])
    assert len(np.unique(np.asarray(many) != 0, axis=0)) == 4
    np.testing.assert_allclose(many[2], one, 1e-6)
    assert fun.draws and abs(float((many == 0).mean()) - 0.25) < 0.06
    with pytest.raises(RuntimeError, match="draws random numbers"):
        fun(params, x)
    state = eager.get_rng_state()
    fun(params, x, rng=keys[0])
    assert bool((state == eager.get_rng_state()).all())


def test_examples_are_mapped_and_batches_sharded() -> None:
    model = eager.nn.Sequential(eager.nn.Linear(3, 4), eager.nn.Tanh(), eager.nn.Linear(4, 2)).double()
    fun, params = eager.lower(model, eager.ones(3, dtype=eager.float64))
    x = jnp.sin(jnp.arange(48.0)).reshape(16, 3)
    each = jax.vmap(dr.jacobian(fun), (None, 0))(params, x)
    plain = jax.vmap(jax.jacrev(fun), (None, 0))(params, x)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, 1e-12), each, plain)
    mesh = Mesh(np.array(jax.devices()), ("batch",))
    spread = NamedSharding(mesh, PartitionSpec("batch"))
    out = jax.jit(fun)(jax.device_put(params, NamedSharding(mesh, PartitionSpec())), jax.device_put(x, spread))
    assert out.sharding.is_equivalent_to(spread, out.ndim)
    np.testing.assert_allclose(out, fun(params, x), 1e-12)


def test_the_module_stays_as_it_is() -> None:
    model = eager.nn.Sequential(eager.nn.Linear(2, 2), eager.nn.BatchNorm1d(2))
    before = {k: v.clone() for k, v in model.state_dict().items()}
    fun, params = eager.lower(model, eager.ones(4, 2))
    x = jnp.arange(8, dtype=jnp.float32).reshape(4, 2)
    jax.jit(lambda p: fun(p, x, buffers=fun.buffers))(params)
    fun(params, x, buffers=fun.buffers)
    assert all(bool((v == before[k]).all()) for k, v in model.state_dict().items())
    assert fun.changes == ("1.running_mean", "1.running_var", "1.num_batches_tracked")
    first, _ = fun(params, x, buffers=fun.buffers)
    model.eval()
    with eager.no_grad():
        model[0].weight.zero_()
    np.testing.assert_array_equal(fun(params, x, buffers=fun.buffers)[0], first)
    assert fun.buffers["1.num_batches_tracked"] == 0


class Remembers(eager.nn.Module):
    """Adds what it got in the last call."""

    def __init__(self) -> None:
        super().__init__()
        self.last: Any = None

    def forward(self, input: Any) -> Any:  # noqa: A002
        out = input if self.last is None else input + self.last
        self.last = input
        return out


class Notes(eager.nn.Linear):
    """Keeps its last result to be looked at, and reads it nowhere."""

    def forward(self, input: Any) -> Any:  # noqa: A002
        self.seen = super().forward(input)
        return self.seen


class Shrinks(eager.nn.Linear):
    """Changes its weight when it is called."""

    def forward(self, input: Any) -> Any:  # noqa: A002
        with eager.no_grad():
            self.weight.mul_(0.5)
        return super().forward(input)


class Looks(eager.nn.Linear):
    """Decides by a value."""

    def forward(self, input: Any) -> Any:  # noqa: A002
        return super().forward(input) if input.sum() > 0 else input


def test_what_is_not_pure_is_refused() -> None:
    x = eager.ones(2)
    with pytest.raises(RuntimeError, match="carries values from one call to the next, in last"):
        eager.lower(Remembers(), x)
    with pytest.raises(RuntimeError, match="changes its parameter 'weight' in place"):
        eager.lower(Shrinks(2, 2), x)
    with pytest.raises(RuntimeError, match="a condition needs the value of a tensor"):
        eager.lower(Looks(2, 2), x)
    with pytest.raises(ValueError, match="the parameter 'weight' has no shape yet"):
        eager.lower(eager.nn.LazyLinear(2), x)
    with pytest.raises(TypeError, match="expected a module, got function"):
        eager.lower(lambda x: x, x)  # type: ignore[arg-type]
    fun, params = eager.lower(Notes(2, 2), x)
    np.testing.assert_allclose(fun(params, jnp.ones(2, jnp.float32)), params["weight"].sum(1) + params["bias"], 1e-6)
    with pytest.raises(ValueError, match=r"(?s)are a dict by its names.*missing are bias; unexpected are b"):
        fun({"weight": params["weight"], "b": params["bias"]}, jnp.ones(2, jnp.float32))
    with pytest.raises(RuntimeError, match=r'Missing key\(s\) in state_dict: "bias"'):
        fun.load({"weight": np.ones((2, 2))})
    with pytest.raises(RuntimeError, match="size mismatch for weight"):
        fun.load({"weight": np.ones((3, 2)), "bias": np.ones(2)})


@pytest.mark.parametrize("transform", [dr.grad, jax.grad, func.grad], ids=["dr", "jax", "func"])
def test_what_leaves_the_graph_is_not_differentiated(transform: Callable[..., Any]) -> None:
    def f(t: Any) -> Callable[[Any], Any]:
        def inner(x: Any) -> Any:
            held = x.detach()
            with t.no_grad():
                scale, part = (3 * x).sum(), x[1:]
            doubled = x * 2
            return (held * x * x.data).sum() * scale + (part * doubled[1:].detach() * doubled[1:]).sum()

        return inner

    x = np.array([0.5, -1.5, 2.0])
    wanted = torch.func.grad(f(torch))(torch.tensor(x))
    given = eager.tensor(x) if transform is func.grad else jnp.asarray(x)
    found = transform(f(eager) if transform is func.grad else func.lower(f(eager)))(given)
    np.testing.assert_allclose(np.asarray(found), wanted.numpy(), 1e-12)


def test_dtypes_are_jaxs_without_64_bits() -> None:
    def f(x: Any) -> Any:
        classes = x.argmax(-1)
        loss = eager.nn.functional.cross_entropy(x, classes) + x.double().sum() + eager.nn.functional.one_hot(classes, 3).sum()
        return classes, loss, x.sort().indices, eager.arange(3) * classes.sum()

    lowered = func.lower(f)
    with jax.enable_x64(False):
        x = jnp.sin(jnp.arange(6, dtype=jnp.float32)).reshape(2, 3)
        staged, plain = jax.jit(lowered)(x), lowered(x)
        for a, b in zip(staged, plain, strict=True):
            assert a.dtype == b.dtype and a.dtype.itemsize == 4
            np.testing.assert_allclose(a, b, 1e-6)
    wide = jax.jit(lowered)(x)
    assert [str(a.dtype) for a in wide] == ["int64", "float64", "int64", "int64"]
    np.testing.assert_allclose(wide[1], staged[1], 1e-6)
    assert eager.tensor([1.5]).double().dtype is eager.float64


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of PyTorch, about parts of its own
def test_functions_with_a_backward_of_their_own_have_it_under_transformations() -> None:
    def f(t: Any) -> Callable[[Any], Any]:
        class Exp(t.autograd.Function):  # type: ignore[misc, name-defined]
            @staticmethod
            def forward(x: Any, scale: float) -> Any:
                return (x * scale).exp(), x.shape[0]

            @staticmethod
            def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
                ctx.scale = inputs[1]
                ctx.save_for_backward(output[0])

            @staticmethod
            def backward(ctx: Any, g: Any, _: Any) -> Any:
                y, = ctx.saved_tensors
                return g * y * ctx.scale, None

        return lambda x: (Exp.apply(x, 2.0)[0] * x.sin()).sum()

    x = np.array([0.5, -1.5, 0.25])
    wanted = [torch.func.grad(f(torch))(torch.tensor(x)),
              torch.func.hessian(lambda x: (torch.exp(2 * x) * x.sin()).sum())(torch.tensor(x))]
    lowered = func.lower(f(eager))
    for grad in (dr.grad, jax.grad):
        np.testing.assert_allclose(grad(lowered)(jnp.asarray(x)), wanted[0].numpy(), 1e-12)
    for hessian in (dr.hessian, jax.hessian, lambda _: lambda x: func.hessian(f(eager))(eager.tensor(np.asarray(x))).jax):
        np.testing.assert_allclose(hessian(lowered)(jnp.asarray(x)), wanted[1].numpy(), 1e-12, 1e-12)
    np.testing.assert_allclose(jax.vmap(jax.grad(lowered))(jnp.stack([x, x]))[1], wanted[0].numpy(), 1e-12)


def test_a_header_that_begins_as_a_pickle_does_is_read() -> None:
    data = eager.serialization.pack({"w": np.ones(3, np.float32)})
    size = 128
    header = data[8: 8 + int.from_bytes(data[:8], "little")].ljust(size)
    arrays, _ = eager.serialization.unpack(size.to_bytes(8, "little") + header + data[-12:])
    np.testing.assert_array_equal(arrays["w"], np.ones(3))
