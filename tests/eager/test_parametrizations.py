"""Layers that learn their sizes, weights of given norm, hooks that are always called, and statistics of instances."""

from __future__ import annotations

import copy
import functools
from typing import Any

import pytest
from against_torch import fill, in_both, message
from test_images import with_grad
from test_packed_sequences import wave

from dualrev import eager


def test_lazy_layers() -> None:
    def program(t: Any) -> list[Any]:
        nn, x = t.nn, wave(t, 2, 3, 6, 6)
        outs: list[Any] = []
        for layer, given in ((nn.LazyLinear(4), x), (nn.LazyConv2d(4, 3, padding=1), x), (nn.LazyConv1d(4, 3, bias=False), x[0]),
                             (nn.LazyConvTranspose2d(4, 3, stride=2, output_padding=1), x), (nn.LazyBatchNorm2d(), x),
                             (nn.LazyInstanceNorm2d(), x)):
            before = repr(layer), layer.has_uninitialized_params()
            layer(given)
            outs += [list(before), repr(layer), list(layer.state_dict()), fill(t, layer)(given)]
        return outs

    in_both(program)


def test_lazy_layers_are_copied_and_loaded() -> None:
    def program(t: Any) -> list[Any]:
        nn, x = t.nn, wave(t, 2, 6)
        lazy, model = nn.Sequential(nn.LazyLinear(4), nn.LazyLinear(2)), fill(t, nn.Sequential(nn.Linear(6, 4), nn.Linear(4, 2)))
        twin = copy.deepcopy(lazy[0])
        twin(x)
        lazy.load_state_dict(model.state_dict())
        return [repr(lazy), repr(twin), repr(nn.LazyLinear(1).weight), lazy(x), repr(lazy),
                message(lambda: nn.LazyLinear(3).weight.shape)]

    in_both(program)


@pytest.mark.parametrize("dim", [0, 1, None])
def test_weight_norm(dim: int | None) -> None:
    def program(t: Any) -> list[Any]:
        x = wave(t, 2, 3, 5, 5)
        layer = t.nn.utils.parametrizations.weight_norm(fill(t, t.nn.Conv2d(3, 4, 3)), dim=dim)
        outs = [repr(layer), list(layer.state_dict()), with_grad(t, layer, x), [p.grad for p in layer.parameters()]]
        t.nn.utils.parametrize.remove_parametrizations(layer, "weight")
        return [*outs, repr(layer), [n for n, _ in layer.named_parameters()], layer(x)]

    in_both(program)


def test_weight_norm_by_a_hook() -> None:
    def program(t: Any) -> list[Any]:
        x = wave(t, 2, 4)
        layer = t.nn.utils.weight_norm(fill(t, t.nn.Linear(4, 3)))
        outs = [[n for n, _ in layer.named_parameters()], with_grad(t, layer, x), [p.grad for p in layer.parameters()]]
        newer = t.nn.utils.parametrizations.weight_norm(t.nn.Linear(4, 3))
        newer.load_state_dict(layer.state_dict())
        t.nn.utils.remove_weight_norm(layer)
        return [*outs, newer(x), layer(x), message(lambda: t.nn.utils.remove_weight_norm(layer), ValueError).split(" in ")[0]]

    with pytest.warns(FutureWarning, match="deprecated"):
        in_both(program)


@pytest.mark.parametrize("older", [False, True])
def test_spectral_norm(older: bool) -> None:
    def program(t: Any) -> list[Any]:
        norm = t.nn.utils.spectral_norm if older else t.nn.utils.parametrizations.spectral_norm
        layer, x = norm(fill(t, t.nn.Linear(4, 3))), wave(t, 2, 4)
        for _ in range(60):  # until the singular vectors, which start at random, are exact
            layer(x)
        return [[n for n, _ in layer.named_parameters()], [n for n, _ in layer.named_buffers()], with_grad(t, layer, x),
                [p.grad for p in layer.parameters()], layer.eval()(x)]

    in_both(program, 1e-4)


@pytest.mark.parametrize("has_base", [True, False])
@pytest.mark.parametrize("kind", ["matrix_exp", "cayley", "householder"])
@pytest.mark.parametrize("shape", [(3, 3), (4, 2), (2, 4)])
def test_orthogonal_weights(shape: tuple[int, int], kind: str, has_base: bool) -> None:
    def program(t: Any) -> list[Any]:
        layer = fill(t, t.nn.Linear(shape[1], shape[0], bias=False))
        t.nn.utils.parametrizations.orthogonal(layer, "weight", kind, use_trivialization=has_base)
        found = layer.parametrizations.weight
        start = found.original.detach().clone()
        with t.no_grad():
            if has_base:  # further columns of the base are drawn at random
                found[0].base.copy_(t.eye(max(shape)))
            change = 0.3 * wave(t, *shape)
            below = change.tril(-1) if shape[0] >= shape[1] else change.triu(1)
            found.original.add_(below if kind == "householder" else change)
        w = layer.weight
        few = w.T @ w if shape[0] >= shape[1] else w @ w.T
        outs = [start, with_grad(t, layer, wave(t, 2, shape[1])), found.original.grad, few.round(decimals=3).abs(), repr(found[0])]
        if has_base or kind == "householder":
            target = t.linalg.qr(wave(t, max(shape), min(shape)) + t.eye(max(shape), min(shape)))[0]
            layer.weight = target if shape[0] >= shape[1] else target.T
            outs.append((layer.weight.abs() - (target if shape[0] >= shape[1] else target.T).abs()).abs().max() < 1e-5)
        return outs

    in_both(program)


def test_a_parametrization_may_not_know_its_inverse() -> None:
    def program(t: Any) -> list[Any]:
        class Doubled(t.nn.Module):  # type: ignore[misc, name-defined]
            def forward(self, x: Any) -> Any:
                return 2 * x

            def right_inverse(self, x: Any) -> Any:
                raise NotImplementedError("none")

        layer = fill(t, t.nn.Linear(2, 2))
        register = t.nn.utils.parametrize.register_parametrization
        register(register(layer, "weight", Doubled()), "weight", Doubled())
        orthogonal = t.nn.utils.parametrizations.orthogonal
        return [layer.weight, layer.parametrizations.weight.original,
                message(lambda: setattr(layer, "weight", t.eye(2)), NotImplementedError),
                *[message(functools.partial(orthogonal, t.nn.Linear(3, 3), *given), ValueError)
                  for given in (("none", None), ("bias", None), ("weight", "no"))],
                message(lambda: setattr(orthogonal(t.nn.Linear(3, 3)), "weight", t.ones(2, 3)), ValueError),
                message(lambda: setattr(orthogonal(t.nn.Linear(3, 3), use_trivialization=False), "weight", t.eye(3)),
                        NotImplementedError)]

    in_both(program)


def test_the_class_before_parametrizations() -> None:
    def program(t: Any) -> list[Any]:
        layer, before = t.nn.Linear(2, 2), t.nn.utils.parametrize.type_before_parametrizations
        found = [before(layer) is t.nn.Linear]
        t.nn.utils.parametrizations.weight_norm(layer)
        return [*found, before(layer) is t.nn.Linear, type(layer) is t.nn.Linear, type(layer).__name__]

    in_both(program)


def test_parametrizations_of_a_user() -> None:
    def program(t: Any) -> list[Any]:
        class Symmetric(t.nn.Module):  # type: ignore[name-defined]
            def forward(self, x: Any) -> Any:
                return x.triu() + x.triu(1).transpose(-1, -2)

            def right_inverse(self, x: Any) -> Any:
                return x.triu()

        class Double(t.nn.Module):  # type: ignore[name-defined]
            def forward(self, x: Any) -> Any:
                return 2 * x

        P, layer = t.nn.utils.parametrize, fill(t, t.nn.Linear(3, 3))
        P.register_parametrization(layer, "weight", Symmetric())
        outs = [repr(layer), layer.weight, [n for n, _ in layer.named_parameters()]]
        layer.weight = t.ones(3, 3)
        outs += [layer.weight, layer.parametrizations.weight.original]
        P.register_parametrization(layer, "weight", Double())
        with P.cached():
            outs.append(layer.weight is layer.weight)
        outs += [layer.weight, P.is_parametrized(layer), P.is_parametrized(layer, "bias"), with_grad(t, layer, wave(t, 2, 3))]
        P.remove_parametrizations(layer, "weight", leave_parametrized=False)
        return [*outs, repr(layer), layer.weight, message(lambda: P.remove_parametrizations(layer, "weight"), ValueError)]

    in_both(program)


def test_hooks_that_are_always_called() -> None:
    def program(t: Any) -> list[Any]:
        class Refuses(t.nn.Module):  # type: ignore[name-defined]
            def forward(self, x: Any) -> Any:
                if x.sum() > 0:
                    raise ValueError("positive")
                return x

        seen: list[Any] = []
        module = Refuses()
        handle = module.register_forward_hook(lambda m, args, out: seen.append(("always", out is None)), always_call=True)
        module.register_forward_hook(lambda m, args, out: seen.append("plain"))
        outs = [message(lambda: module(t.ones(1)), ValueError), list(seen)]
        module(-t.ones(1))
        outs.append(list(seen))
        handle.remove()
        return [*outs, message(lambda: module(t.ones(1)), ValueError), seen]

    in_both(program)


def test_statistics_of_instances_and_local_response() -> None:
    def program(t: Any) -> list[Any]:
        x, layer = wave(t, 2, 4, 5, 5), fill(t, t.nn.InstanceNorm2d(4, affine=True, track_running_stats=True))
        return [with_grad(t, layer, x), layer.running_mean, layer.running_var, layer.eval()(x),
                t.nn.InstanceNorm3d(2)(wave(t, 1, 2, 3, 3, 3)),
                with_grad(t, t.nn.LocalResponseNorm(3), x), t.nn.LocalResponseNorm(2, 0.1, 0.5, 2.0)(x[:, :, 0])]

    in_both(program)


def test_kernels_that_keep_channels_and_sparse_weights() -> None:
    def program(t: Any) -> list[Any]:
        init, weight = t.nn.init, t.empty(6, 4)
        init.sparse_(weight, 0.5)
        return [init.dirac_(t.empty(3, 2, 3, 3)), init.dirac_(t.empty(4, 2, 3), 2), (weight == 0).sum(0), init.calculate_gain("conv2d"),
                message(lambda: init.calculate_gain("unknown"), ValueError), message(lambda: init.dirac_(t.ones(2, 2)), ValueError)]

    in_both(program)


def test_wrapper_for_several_devices() -> None:
    in_both(lambda t: (lambda m: [m(t.ones(1, 2)), list(m.state_dict())])(t.nn.DataParallel(fill(t, t.nn.Linear(2, 2)))))


def test_modules_of_nn_by_pytorchs_names() -> None:
    nn: Any = eager.nn
    assert isinstance(nn.BatchNorm2d(1), nn.modules.batchnorm._BatchNorm)
    assert isinstance(nn.Conv1d(1, 1, 1), nn.modules.conv._ConvNd)
    assert isinstance(nn.MSELoss(), nn.modules.loss._Loss)
    assert nn.modules.Linear is nn.Linear
    assert nn.parameter.Parameter is nn.Parameter
    assert isinstance(nn.LSTM(1, 1), nn.RNNBase)
