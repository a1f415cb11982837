"""Resizing, padding, pooling, folding and sampling of images."""

from __future__ import annotations

import math
from typing import Any

import pytest
from against_torch import fill, in_both, message
from test_packed_sequences import wave

from dualrev import eager

pytestmark = pytest.mark.thorough


def with_grad(t: Any, fun: Any, *given: Any) -> list[Any]:
    """The result, and the gradients of a weighted sum of it."""
    inputs = [x.clone().requires_grad_() for x in given]
    out = fun(*inputs)
    first = out[0] if isinstance(out, tuple) else out
    (first * t.arange(float(first.numel())).reshape(first.shape).cos()).sum().backward()
    return [out, [x.grad for x in inputs]]


@pytest.mark.parametrize("mode", ["nearest", "nearest-exact", "area", "bilinear", "bicubic"])
def test_images_are_resized(mode: str) -> None:
    def program(t: Any) -> list[Any]:
        resize, x = t.nn.functional.interpolate, wave(t, 1, 2, 4, 5)
        choices = [None] if mode in ("nearest", "nearest-exact", "area") else [False, True]
        sizes: list[dict[str, Any]] = [{"size": 7}, {"size": (3, 2)}, {"scale_factor": 1.7}, {"scale_factor": 0.6}]
        if choices != [None]:
            sizes.append({"size": 3, "antialias": True})
        return [with_grad(t, lambda x: resize(x, mode=mode, align_corners=c, **kw), x) for kw in sizes for c in choices]  # noqa: B023

    in_both(program, 1e-4)


def test_sequences_and_volumes_are_resized() -> None:
    def program(t: Any) -> list[Any]:
        resize, x, y = t.nn.functional.interpolate, wave(t, 1, 2, 5), wave(t, 1, 2, 2, 3, 4)
        return [resize(x, 7), resize(x, scale_factor=1.7, mode="linear"), resize(y, 3, mode="nearest-exact"),
                resize(y, scale_factor=2, mode="trilinear", align_corners=True), resize(y, (1, 2, 3), mode="area"),
                t.nn.Upsample(scale_factor=2, mode="trilinear")(y), t.nn.UpsamplingBilinear2d(size=3)(y[0]),
                message(lambda: resize(x, 2, mode="bilinear"), NotImplementedError), message(lambda: resize(x), ValueError),
                message(lambda: resize(x, 3, align_corners=True), ValueError), message(lambda: resize(x, (1, 2)), ValueError)]

    in_both(program)


def test_resolution_and_channels() -> None:
    def program(t: Any) -> list[Any]:
        F, x = t.nn.functional, wave(t, 1, 8, 2, 2)
        return [F.pixel_shuffle(x, 2), F.pixel_unshuffle(x, 2), F.channel_shuffle(x, 4), message(lambda: F.pixel_shuffle(x, 3)),
                message(lambda: F.pixel_unshuffle(x, 3)), message(lambda: F.channel_shuffle(x, 3))]

    in_both(program)


@pytest.mark.parametrize("mode", ["constant", "reflect", "replicate", "circular"])
def test_padding(mode: str) -> None:
    def program(t: Any) -> list[Any]:
        x = wave(t, 1, 2, 3, 4)
        return [with_grad(t, lambda x: t.nn.functional.pad(x, p, mode), x) for p in ((1, 2, 2, 1), (-1, 1, 0, -1))]  # noqa: B023

    in_both(program)


def test_wrong_padding_is_refused() -> None:
    def program(t: Any) -> list[str]:
        pad, x = t.nn.functional.pad, t.ones(1, 2, 3, 4)
        return [message(lambda: pad(x, (4, 0, 0, 0), "reflect")), message(lambda: pad(x, (5, 0, 0, 0), "circular")),
                message(lambda: pad(x, (1, 1), "reflect"), NotImplementedError), message(lambda: pad(x, (1,))),
                message(lambda: pad(x, (-5, 0)))]

    in_both(program)


def test_padding_layers_and_modes_of_convolutions() -> None:
    def program(t: Any) -> list[Any]:
        nn, x = t.nn, wave(t, 2, 3, 5, 6)
        layers = [nn.ConstantPad2d(1, 2.5), nn.ZeroPad2d((1, 2, -1, 0)), nn.ReflectionPad2d(2), nn.ReplicationPad2d(3),
                  nn.CircularPad2d((1, 2, 3, 4))]
        layers += [fill(t, nn.Conv2d(3, 2, 3, padding=p, padding_mode=m)) for m, p in (
            ("reflect", 1), ("circular", (2, 1)), ("replicate", "same"))]
        layers.append(fill(t, nn.Conv2d(3, 2, 2, padding="same", padding_mode="circular")))
        up = fill(t, nn.ConvTranspose2d(3, 2, 3, stride=2, padding=1))
        return [[with_grad(t, m, x) for m in layers], [repr(m) for m in layers], up(x, output_size=(10, 12)),
                message(lambda: up(x, output_size=(19, 12)), ValueError),
                message(lambda: nn.Conv2d(1, 1, 1, 2, padding="same"), ValueError)]

    in_both(program)


@pytest.mark.parametrize("n", [1, 2, 3])
def test_pooling(n: int) -> None:
    def program(t: Any) -> list[Any]:
        F, x = t.nn.functional, wave(t, 1, 2, *(4, 5, 6)[-n:])
        largest, means = getattr(F, f"max_pool{n}d"), getattr(F, f"avg_pool{n}d")
        outs: list[Any] = []
        for kw in ({"kernel_size": 3, "stride": 2, "padding": 1}, {"kernel_size": 2, "stride": 3, "padding": 1, "ceil_mode": True}):
            outs += [with_grad(t, lambda x: largest(x, return_indices=True, **kw), x), largest(x, **kw),  # noqa: B023
                     with_grad(t, lambda x: means(x, count_include_pad=False, **kw), x), means(x, **kw)]  # noqa: B023
        outs += [getattr(F, f"lp_pool{n}d")(x.abs(), 2, 2), with_grad(t, lambda x: getattr(F, f"adaptive_avg_pool{n}d")(x, 3), x),
                 with_grad(t, lambda x: getattr(F, f"adaptive_max_pool{n}d")(x, 3, return_indices=True), x)]
        values, places = largest(x, 2, return_indices=True)
        return [outs, getattr(F, f"max_unpool{n}d")(values, places, 2, output_size=x.shape), message(lambda: largest(x, 9)),
                message(lambda: means(x, 2, padding=2))]

    in_both(program)


def test_pooling_layers() -> None:
    def program(t: Any) -> list[Any]:
        nn, x = t.nn, wave(t, 1, 4, 6, 6)
        layers = [nn.MaxPool2d(3, 2, 1, 1, False, True), nn.AvgPool2d(3, 2, 1, True, False), nn.AdaptiveMaxPool2d((3, None)),
                  nn.LPPool2d(2, 3, ceil_mode=True), nn.MaxPool1d(2), nn.AvgPool1d(2), nn.AdaptiveAvgPool3d(2), nn.MaxUnpool2d(2)]
        return [[m(x) for m in layers[:3]], t.nn.functional.avg_pool2d(x, 2, divisor_override=3), [repr(m) for m in layers]]

    in_both(program)


def test_windows_as_columns() -> None:
    def program(t: Any) -> list[Any]:
        F, x = t.nn.functional, wave(t, 1, 2, 6, 7)
        kw = {"kernel_size": (3, 2), "padding": 1, "stride": 2, "dilation": (1, 2)}
        columns = F.unfold(x, **kw)
        return [with_grad(t, lambda x: F.unfold(x, **kw), x), with_grad(t, lambda x: F.fold(x, output_size=(6, 7), **kw), columns),
                t.nn.Fold((6, 7), 2)(t.nn.Unfold(2)(x[0])), message(lambda: F.unfold(x, 9)),
                message(lambda: F.fold(columns, (5, 5), 2))]

    in_both(program)


@pytest.mark.parametrize("mode", ["bilinear", "nearest", "bicubic"])
def test_grid_sample(mode: str) -> None:
    def program(t: Any) -> list[Any]:
        sample = t.nn.functional.grid_sample
        x, grid = wave(t, 1, 2, 4, 5), 1.4 * wave(t, 1, 3, 4, 2)
        outs = [with_grad(t, lambda x, g: sample(x, g, mode, p, c), x, grid)  # noqa: B023
                for p in ("zeros", "border", "reflection") for c in (True, False)]
        if mode != "bicubic":
            outs.append(with_grad(t, lambda x, g: sample(x, g, mode, "border", False), wave(t, 1, 2, 3, 4, 5), wave(t, 1, 2, 3, 3, 3)))
        return outs

    in_both(program, 1e-4)


def test_affine_grid() -> None:
    def program(t: Any) -> list[Any]:
        grid = t.nn.functional.affine_grid
        return [with_grad(t, lambda x: grid(x, (1, 2, 3, 4), c), wave(t, 1, 2, 3)) for c in (True, False)] + [  # noqa: B023
            grid(wave(t, 1, 3, 4), (1, 2, 2, 3, 1), True), message(lambda: grid(wave(t, 1, 2, 3), (1, 2, 3, 4, 5), True), ValueError)]

    in_both(program)


def test_dropout_of_channels() -> None:
    F = eager.nn.functional
    eager.manual_seed(0)
    for drop, shape in ((F.dropout1d, (3, 4, 5)), (F.dropout2d, (3, 4, 5, 2)), (F.dropout3d, (3, 4, 5, 2, 2))):
        y = drop(eager.ones(*shape)).flatten(2)
        assert bool((y == y[:, :, :1]).all())
        assert set(y.flatten().tolist()) == {0.0, 2.0}
    assert len(set(F.alpha_dropout(eager.ones(50), training=True).tolist())) == 2
    y = F.feature_alpha_dropout(eager.ones(9, 9, 5), training=True)
    assert bool((y == y[:, :, :1]).all())
    x = eager.randn(20_000)
    y = eager.nn.AlphaDropout(0.3)(x)
    assert abs(y.mean().item()) < 0.05
    assert abs(y.std().item() - 1) < 0.05
    in_both(lambda t: [message(lambda: t.nn.functional.dropout1d(t.ones(3))), repr(t.nn.Dropout1d(0.2)),
                       t.nn.AlphaDropout().eval()(t.ones(2))])


@pytest.mark.parametrize("n", [2, 3])
def test_windows_that_start_at_random_places(n: int) -> None:
    def program(t: Any) -> Any:
        F, size = t.nn.functional, (2, 3, *(7, 9, 8)[:n])
        pool = getattr(F, f"fractional_max_pool{n}d")
        x = (t.arange(float(math.prod(size))).reshape(size) * 1.3).sin().requires_grad_()
        samples = (t.arange(6.0 * n).reshape(2, 3, n) * 0.37) % 1
        found, refused = [], []
        for options in (dict(output_size=3), dict(output_size=(1, 4, 2)[:n]), dict(output_ratio=(0.5, 0.4, 0.3)[:n])):
            values, places = pool(x, 2, **options, return_indices=True, _random_samples=samples)
            found += [values, places, *t.autograd.grad((values * values).sum(), x)]
        found.append(pool(x[0], (2, 3, 1)[:n], output_size=3, _random_samples=samples[:1]))
        layer = getattr(t.nn, f"FractionalMaxPool{n}d")
        found.append(layer(2, output_size=3, _random_samples=samples)(x))
        for call in (lambda: pool(x, 2), lambda: pool(x, 2, output_size=9), lambda: layer(2), lambda: layer(2, output_ratio=1.5),
                     lambda: layer(2, output_size=3, output_ratio=0.5), lambda: pool(x, 2, output_size=3, _random_samples=samples[0])):
            try:
                call()
            except (ValueError, RuntimeError) as error:
                refused.append([type(error).__name__, str(error).splitlines()[0]])
        return [found, refused, list(layer(2, output_ratio=0.5)(x).shape), repr(layer(2, output_ratio=0.5))]

    in_both(program)
