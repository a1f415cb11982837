"""Drawings: what stands in them is right, nothing lies over anything else, and what is folded is said."""

from __future__ import annotations

import itertools
import pathlib
import sys
from collections.abc import Callable
from typing import Any
from xml.etree import ElementTree

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.sharding import AxisType
from jax.sharding import PartitionSpec as P

import dualrev as dr
from dualrev import time_model
from dualrev.__main__ import main
from dualrev.inspection.drawing.api import content_of_call
from dualrev.inspection.drawing.drawings import Drawing
from dualrev.inspection.drawing.items import Item
from dualrev.inspection.pictures.heat import colour, ink_on
from dualrev.inspection.pictures.sheet import Box, Label, Stroke, curve
from dualrev.inspection.tracing import Call


def layer(p: Any, x: Any) -> Any:
    with jax.named_scope("layer"):
        return jnp.tanh(x @ p["w"] + p["b"][None])


def mlp(params: Any, x: Any, y: Any) -> Any:
    for p in params:
        x = layer(p, x)
    return jnp.mean((x - y) ** 2)


PARAMS = [{"w": jnp.eye(8), "b": jnp.ones(8)} for _ in range(3)]
MLP = (mlp, (PARAMS, jnp.ones((4, 8)), jnp.zeros((4, 8))))


def lstm(w: Any, xs: Any) -> Any:
    def cell(carry: Any, x: Any) -> Any:
        h, c = carry
        i, f, g, o = jnp.split(w["x"] @ x + w["h"] @ h + w["b"], 4)
        c = jax.nn.sigmoid(f) * c + jax.nn.sigmoid(i) * jnp.tanh(g)
        h = jax.nn.sigmoid(o) * jnp.tanh(c)
        return (h, c), h

    return jnp.sum(lax.scan(cell, (jnp.zeros(8), jnp.zeros(8)), xs)[1] ** 2)


def layer_norm(x: Any, g: Any) -> Any:
    m = jnp.mean(x, -1, keepdims=True)
    return (x - m) * lax.rsqrt(jnp.var(x, -1, keepdims=True) + 1e-5) * g[None]


def attention(p: Any, x: Any) -> Any:
    q, k, v = [(x @ p[name]).reshape(x.shape[0], 4, -1).transpose(1, 0, 2) for name in "qkv"]
    s = jnp.where(jnp.tril(jnp.ones((x.shape[0],) * 2, bool))[None], jnp.einsum("hid,hjd->hij", q, k), -1e9)
    return jnp.einsum("hij,hjd->hid", jax.nn.softmax(s, -1), v).transpose(1, 0, 2).reshape(x.shape) @ p["o"]


def transformer(params: Any, x: Any) -> Any:
    for p in params:
        x = x + attention(p, layer_norm(x, p["g"]))
        x = x + jax.nn.gelu(layer_norm(x, p["g"]) @ p["u"]) @ p["d"]
    return jnp.mean(x ** 2)


def block(d: int = 16) -> Any:
    return {**{name: jnp.full((d, d), 0.1) for name in "qkvo"}, "g": jnp.ones(d), "u": jnp.ones((d, 2 * d)), "d": jnp.ones((2 * d, d))}


def newton(x: Any, a: Any) -> Any:
    @jax.checkpoint  # type: ignore[untyped-decorator]
    def step(c: Any) -> Any:
        return c[0] + 1, c[1] - 0.1 * (jnp.sin(c[1]) * c[1] - a) * jnp.exp(-c[1])

    return lax.while_loop(lambda c: c[0] < 30, step, (0, x))[1].sum()


@jax.custom_vjp
def clip(x: Any) -> Any:
    return x * 1.0


clip.defvjp(lambda x: (clip(x), x), lambda x, ct: (jnp.clip(ct, -1, 1) * jnp.cos(x),))


@dr.rule(partials=[lambda x: jax.nn.sigmoid(x)])
def softplus(x: Any) -> Any:
    return jnp.logaddexp(x, 0.0)


def custom(x: Any, w: Any) -> Any:
    y = clip(x * w)
    with jax.named_scope("activation"):
        y = jax.nn.relu(y) + softplus(y)
    return jnp.sum(lax.cond(x[0] > 0, lambda y: jnp.sin(y) * 2, jnp.cos, y))


def long(x: Any) -> Any:
    def wave(x: Any, k: float) -> Any:
        y = jnp.sin(x) * k
        return y + jnp.cos(y)

    for k in range(60):
        x = wave(x, float(k))
        x = x * jnp.exp(-x * x)
        x = x - jnp.mean(x)
    return jnp.sum(x)


def wide(x: Any) -> Any:
    return jnp.concatenate([jnp.sin(x * float(k)) for k in range(15)])


def skips(x: Any) -> Any:
    values = [x]
    for _ in range(10):
        values.append(jnp.sin(sum(values[-3:])) * values[0])
    return values[-1] * values[2]


@jax.jit
def twice(x: Any) -> Any:
    return jnp.sin(x) * 2.0


PROGRAMS: dict[str, tuple[Callable[..., Any], tuple[Any, ...]]] = {
    "mlp": MLP,
    "jitted": (jax.jit(mlp), MLP[1]),
    "lstm": (lstm, ({"x": jnp.ones((32, 4)), "h": jnp.ones((32, 8)), "b": jnp.ones(32)}, jnp.ones((50, 4)))),
    "transformer": (transformer, ([block()], jnp.ones((8, 16)))),
    "three blocks": (jax.jit(transformer), ([block()] * 3, jnp.ones((8, 16)))),
    "while": (newton, (jnp.ones(5), 2.0)),
    "rules": (custom, (jnp.ones(6), jnp.ones(6))),
    "long": (long, (jnp.ones(100),)),
    "wide": (wide, (jnp.ones(3),)),
    "skips": (skips, (jnp.ones(3),)),
    "twice": (lambda x: twice(twice(x)), (jnp.ones(3),)),
    "identity": (lambda x: x, (jnp.ones(3),)),
    "constant": (lambda x: 3.0, (jnp.ones(3),)),
    "empty": (lambda x: jnp.sum(jnp.sin(x)), (jnp.ones((0, 3)),)),
    "integers": (lambda x, k: x[k] * 2.0, (jnp.ones(3), jnp.arange(2))),
    "half": (lambda x: jnp.sum(jnp.exp(x)), (jnp.ones(3, jnp.bfloat16),)),
    "complex": (lambda z: jnp.sum(jnp.abs(jnp.exp(z)) ** 2), (jnp.ones(3, complex),)),
    "vmap": (jax.vmap(lambda x: lax.scan(lambda c, x: (jnp.sin(c) + x, c), 0.0, x)[0]), (jnp.ones((3, 4)),)),
    "gradient": (dr.grad(lambda x: jnp.sum(jnp.sin(x) ** 3)), (jnp.ones(3),)),
    "solve": (lambda a, b: jnp.linalg.solve(a, b), (jnp.eye(3) * 2, jnp.ones(3))),
    "remat": (dr.checkpoint(lambda x: jnp.sum(jnp.sin(jnp.sin(x)))), (jnp.ones(3),)),
    "pytree": (lambda d, *more, k: {"a": d["<x&y>"] * more[0], "b": k}, ({"<x&y>": jnp.ones(2)}, jnp.ones(2))),
    "sharded": (jax.shard_map(lambda x: jnp.sin(x) * 2.0, mesh=jax.make_mesh((2,), ("i",), axis_types=(AxisType.Auto,)),
                              in_specs=P("i"), out_specs=P("i")), (jnp.ones(4),)),
}


def drawn(name: str, **options: Any) -> Drawing:
    f, args = PROGRAMS[name]
    more: dict[str, Any] = {"k": jnp.ones(2)} if name == "pytree" else {}
    return dr.draw(f, *args, **more, **options)


def solid(drawing: Drawing) -> list[Box]:
    """The boxes of operations, inputs and outputs."""
    return [s for s in drawing.sheet.shapes if isinstance(s, Box) and s.tip and not s.is_dashed]


def apart(a: Box, b: Box) -> bool:
    return a.x >= b.x + b.width or b.x >= a.x + a.width or a.y >= b.y + b.height or b.y >= a.y + a.height


def holds(box: Box, x: float, y: float) -> bool:
    return box.x < x < box.x + box.width and box.y < y < box.y + box.height


def along(stroke: Stroke) -> list[tuple[float, float]]:
    """Points of an arrow, but for its ends."""
    found = []
    for a, b, c, d in curve(stroke.points):
        for t in np.linspace(0, 1, 21):
            w = ((1 - t) ** 3, 3 * t * (1 - t) ** 2, 3 * t * t * (1 - t), t ** 3)
            found.append(tuple(sum(k * p[i] for k, p in zip(w, (a, b, c, d), strict=True)) for i in (0, 1)))
    return found[1:-1]  # type: ignore[return-value]


@pytest.mark.parametrize("name", PROGRAMS)
def test_a_drawing_is_legible(name: str) -> None:
    """Well-formed, every box apart from the others, every text inside its box or frame and the sheet, arrows around boxes."""
    drawing = drawn(name)
    root = ElementTree.fromstring(drawing.svg)
    assert root.tag.endswith("svg") and drawing.boxes <= 40 and drawing.svg == drawing._repr_svg_()
    sheet, boxes = drawing.sheet, solid(drawing)
    frames = [s for s in sheet.shapes if isinstance(s, Box) and s.is_dashed]
    assert len(boxes) >= drawing.boxes
    for a, b in itertools.combinations(boxes, 2):
        assert apart(a, b), (a.tip, b.tip)
    for frame, box in itertools.product(frames, boxes):
        inside = holds(frame, box.x, box.y) and holds(frame, box.x + box.width, box.y + box.height)
        assert inside or apart(frame, box), (frame.tip, box.tip)
    for shape in sheet.shapes:
        if isinstance(shape, Label):
            start = shape.x - {"start": 0.0, "middle": shape.width / 2, "end": shape.width}[shape.anchor]
            assert start >= 0 and start + shape.width <= sheet.width and shape.size <= shape.y <= sheet.height, shape.text
            for box in [b for b in (*boxes, *frames) if holds(b, start + 1, shape.y - 3)]:
                assert start + shape.width <= box.x + box.width, (shape.text, box.tip)
        elif isinstance(shape, Stroke):
            for x, y in along(shape):
                assert not any(holds(box, x, y) for box in boxes), shape.points
        elif shape.tip:
            assert shape.x >= 0 and shape.y >= 0
            assert shape.x + shape.width <= sheet.width and shape.y + shape.height <= sheet.height, shape.tip


@pytest.mark.parametrize("name", PROGRAMS)
def test_bytes_are_those_of_the_tape(name: str) -> None:
    f, args = PROGRAMS[name]
    kwargs = {"k": jnp.ones(2)} if name == "pytree" else {}
    call = Call("draw", f, args, kwargs)
    content = content_of_call(call, time_model.constants())
    stored = sum(item.stored for item in content.items)
    left = [note for note in content.notes if "more are stored" in note]
    expected = dr.linearize(call.function, *call.leaves)[1].residuals().nbytes
    assert stored == expected and not left if name != "gradient" else stored <= expected


def operations(content_items: list[Item]) -> list[Item]:
    return [inner for item in content_items for inner in item.walk() if not inner.children]


def test_each_operation_has_its_own_bytes() -> None:
    content = content_of_call(Call("draw", mlp, MLP[1], {}), time_model.constants())
    kept = [(item.label, item.own_stored) for item in operations(content.items) if item.own_stored]
    square = 4 * 8 * 8
    assert kept == [("dot_general", 64 * 8 + square), ("tanh", square), ("dot_general", 64 * 8), ("tanh", square),
                    ("dot_general", 64 * 8), ("tanh", square), ("integer_pow", square)]
    assert all("test_drawing.py" in item.line for item in operations(content.items))


def test_seconds_are_those_of_the_time_model() -> None:
    """Of a function that is called twice each call has its part."""
    for name in ("twice", "lstm", "transformer", "rules"):
        f, args = PROGRAMS[name]
        content = content_of_call(Call("draw", f, args, {}), time_model.constants())
        total = sum(line.seconds for line in time_model.predict(f, *args).lines)
        parts = sum(item.own_seconds for top in content.items for item in top.walk())
        assert parts == pytest.approx(total, rel=1e-9) and total > 0
    content = content_of_call(Call("draw", *PROGRAMS["twice"], {}), time_model.constants())
    assert content.items[0].seconds == pytest.approx(content.items[1].seconds)


def test_flops_of_a_loop_are_those_of_all_steps() -> None:
    def product(w: Any, x: Any) -> Any:
        return lax.scan(lambda x, _: (w @ x, None), x, None, length=7)[0]

    content = content_of_call(Call("draw", product, (jnp.ones((5, 5)), jnp.ones(5)), {}), time_model.constants())
    assert sum(item.flops for item in content.items) == 7 * 2 * 5 * 5
    assert "350 flops" in dr.draw(product, jnp.ones((5, 5)), jnp.ones(5), by="flops").svg


def test_a_branch_counts_the_larger_of_its_sides() -> None:
    def f(x: Any) -> Any:
        return lax.cond(x[0] > 0, lambda x: x @ x @ x, lambda x: x, jnp.outer(x, x))

    (choice,) = [i for i in content_of_call(Call("draw", f, (jnp.ones(5),), {}), time_model.constants()).items if i.is_choice]
    assert [child.label for child in choice.children] == ["branch 1"] and choice.flops == 2 * 2 * 5 ** 3


@pytest.mark.parametrize("most", [1, 2, 7, 40, 1000])
def test_what_is_folded_is_said(most: int) -> None:
    drawing = drawn("long", max_boxes=most)
    assert drawing.boxes <= most
    shown = drawing.boxes - len(drawing.folded)
    assert shown + sum(sum(one.operations.values()) for one in drawing.folded) == drawing.operations > 500
    if most >= 1000:
        assert not drawing.folded and "Folded" not in drawing.svg
        return
    assert "Folded group" in drawing.svg and "operations: " in str(drawing.folded[0]) and "folded:" in str(drawing)
    assert sum(one.operations.get("exp", 0) for one in drawing.folded) <= 60
    assert sum(one.stored for one in drawing.folded) <= dr.linearize(long, jnp.ones(100))[1].residual_bytes


def test_groups_are_calls_loops_and_scopes() -> None:
    labels = [s.tip.splitlines()[0] for s in drawn("lstm").sheet.shapes if isinstance(s, Box) and s.is_dashed]
    assert labels == ["scan, 50 steps"]
    words = "".join(ElementTree.fromstring(drawn("rules").svg).itertext())
    for word in ("scope activation", "custom_vjp_call clip", "custom_jvp_call relu", "cond, 2 branches", "branch 1", "test_drawing.py"):
        assert word in words
    f, args = PROGRAMS["lstm"]
    folded = str(dr.draw(f, *args, max_boxes=5).folded[0])
    assert folded.startswith("scan, 50 steps (test_drawing.py:") and "3 logistic" in folded and "operations" in folded


def test_inputs_are_named() -> None:
    texts = [label.text for label in drawn("mlp").sheet.labels()]
    assert "← params[2]['w']" in texts and "x" in texts and "y" in texts
    assert any("<x&y>" in label.text for label in drawn("pytree").sheet.labels()) and "&lt;x&amp;y&gt;" in drawn("pytree").svg


def test_shapes_are_enough() -> None:
    """With a ShapeDtypeStruct nothing runs, and the picture is that of arrays."""
    ran = []

    def f(x: Any) -> Any:
        jax.debug.callback(lambda: ran.append(1))
        return jnp.sum(jnp.sin(x) ** 2)

    drawing = dr.draw(f, jax.ShapeDtypeStruct((4,), jnp.float64))
    jax.effects_barrier()
    assert not ran
    assert "sin" in drawing.svg and "stored" in str(drawing)
    inside = []

    @jax.jit
    def traced(x: Any) -> Any:
        inside.append(dr.draw(jnp.sin, x))
        return x

    traced(jnp.ones(3))
    assert inside[0].boxes == 1


def test_a_linear_map_is_drawn_and_shown() -> None:
    _, J = dr.linearize(mlp, *MLP[1])
    drawing = dr.draw(J)
    assert f"{sum(i.stored for i in drawing._content.items)}" == str(J.residual_bytes) and drawing.by == "bytes"
    ElementTree.fromstring(drawing.svg)
    assert drawing.svg in J._repr_html_() and "<table>" in J._repr_html_()
    for other in (J.T, 2.0 * J, J + J, J @ J.T, jax.jit(lambda x: dr.linearize(jnp.sin, x)[1])(jnp.ones(3))):
        ElementTree.fromstring(dr.draw(other).svg)
    strokes = [s for s in dr.draw(dr.linearize(lambda x: jnp.cos(jnp.sin(x)), 1.0)[1]).sheet.shapes if isinstance(s, Stroke)]
    assert len(strokes) == 1


def test_bad_input() -> None:
    x = jnp.ones(3)
    with pytest.raises(ValueError, match="max_boxes must be a whole number of at least 1; got 0"):
        dr.draw(jnp.sin, x, max_boxes=0)
    with pytest.raises(ValueError, match="by must be 'time', 'flops' or 'bytes'; got 'colour'"):
        dr.draw(jnp.sin, x, by="colour")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="callable"):
        dr.draw(3, x)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="arguments that hold arrays; got none"):
        dr.draw(lambda: 1.0)
    J = dr.linearize(jnp.sin, x)[1]
    with pytest.raises(TypeError, match="arguments belong to a function"):
        dr.draw(J, x)
    with pytest.raises(ValueError, match="Draw the function"):
        dr.draw(J, by="time")
    with pytest.raises(jax.errors.ConcretizationTypeError) as caught:
        dr.draw(lambda x: x if x[0] > 0 else -x, x)
    assert "draw traces the function" in caught.value.__notes__[0]
    with pytest.raises(RuntimeError, match="mine"):
        dr.draw(lambda x: (_ for _ in ()).throw(RuntimeError("mine")), x)
    assert float(dr.grad(jnp.sin)(0.0)) == 1.0


def test_files(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawing = drawn("rules")
    drawing.save(tmp_path / "f.svg")
    assert (tmp_path / "f.svg").read_text() == drawing.svg
    drawing.save(tmp_path / "f.png")
    assert (tmp_path / "f.png").read_bytes()[:8] == b"\x89PNG\r\n\x1a\n" and (tmp_path / "f.png").stat().st_size > 20_000
    with pytest.raises(ValueError, match=r"saved as .svg or .png; got .*f.pdf"):
        drawing.save(tmp_path / "f.pdf")
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(ImportError, match=r"pip install 'dualrev\[papers\]'"):
        drawing.save(tmp_path / "g.png")


def test_colours_differ_in_lightness() -> None:
    """Every colour vision tells them apart, and texts can be read on them."""
    def luminance(code: str) -> float:
        parts = [int(code[i: i + 2], 16) / 255 for i in (1, 3, 5)]
        return sum(k * (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4)
                   for k, c in zip((0.2126, 0.7152, 0.0722), parts, strict=True))

    scale = [luminance(colour(k / 20)) for k in range(21)]
    assert all(a > b for a, b in itertools.pairwise(scale)) and scale[0] > 0.85 > 0.05 > scale[-1]
    for k in range(21):
        light, dark = sorted((luminance(colour(k / 20)), luminance(ink_on(colour(k / 20)))))[::-1]
        assert (light + 0.05) / (dark + 0.05) > 4.2, k


def test_command(tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = tmp_path / "a_drawn_model.py"
    model.write_text("import jax.numpy as jnp\ndef loss(w, x, by=2.0):\n    return jnp.sum(jnp.tanh(w @ x)) * by\n"
                     "def bad(x):\n    raise ValueError('no')\n")
    words = ["draw", f"{model}:loss", "--args", "jnp.ones((2, 3)), jnp.ones(3), by=3.0"]
    assert main([*words, "-o", str(tmp_path / "f.svg"), "--by", "bytes"]) == 0
    out, err = capsys.readouterr()
    assert out.startswith("loss: 5 operations") and "a_drawn_model.py:3" in out and "written" in err
    ElementTree.fromstring((tmp_path / "f.svg").read_text())
    for more, said in ((["--max-boxes", "0"], "at least 1"), (["-o", "f.pdf"], ".svg or .png"), (["--by", "x"], "invalid choice")):
        assert main([*words, *more]) == 2
        assert said in capsys.readouterr().err
    assert main(["draw", f"{model}:bad", "--args", "1.0"]) == 2
    assert "bad(x) failed: ValueError: no (a_drawn_model.py:5)" in capsys.readouterr().err
