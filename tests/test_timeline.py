"""Timelines: live bytes counted by hand and by running the programs, policies, what is kept when, and the pictures."""

from __future__ import annotations

import json
import pathlib
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
from dualrev.__main__ import main
from dualrev.inspection.pictures.sheet import Box, Label, Stroke
from dualrev.inspection.timeline.courses import joined
from dualrev.inspection.timeline.liveness import life_of
from dualrev.inspection.timeline.plotting import LEFT, RIGHT, WIDTH, Curve, across
from dualrev.inspection.timeline.tracing import POLICIES

X = jnp.ones(1000)
KB = 8000


def waves(x: Any) -> Any:
    for _ in range(4):
        x = jnp.sin(x)
    return x


def test_live_bytes_of_a_chain() -> None:
    """Forward keeps the argument of each sine; the pull lets each go when its cosine was read."""
    course = dr.timeline(waves, X, policies={"default": "default"}).courses["default"]
    assert course.boundary == 4 and course.live[:4].tolist() == [2 * KB, 3 * KB, 4 * KB, 5 * KB]
    assert [(array.nbytes, array.operation, array.start) for array in course.kept] == [(KB, "sin", k) for k in range(3)]
    assert course.kept_bytes == dr.linearize(waves, X)[1].residual_bytes - KB
    # The pull starts with the cotangent and all that forward made, and adds the cosine.
    assert course.live[4] == (1 + 4 + 1 + 1) * KB
    ends = [array.end for array in course.kept]
    assert ends == sorted(ends, reverse=True) and len(set(ends)) == 3
    # At the end live: the input, the result and its cotangent's product.
    assert course.live[-1] <= 5 * KB < course.peak


def test_nothing_saved_is_computed_again() -> None:
    found = dr.timeline(waves, X)
    assert list(found.courses) == list(POLICIES)
    nothing, everything = found.courses["nothing saved"], found.courses["everything saved"]
    assert nothing.kept_bytes == 0 < everything.kept_bytes == 3 * KB
    assert nothing.live.size > everything.live.size and nothing.live[:4].tolist() == [2 * KB, 3 * KB, 3 * KB, 3 * KB]
    assert found.courses["min_cut"].kept_bytes <= everything.kept_bytes
    assert nothing.peak_part == "pull" and nothing.peak_operation


def test_products_alone_are_saved() -> None:
    def f(w: Any, x: Any) -> Any:
        return jnp.sum(jnp.sin(jnp.sin(w @ x)))

    dots = dr.timeline(f, jnp.ones((50, 1000)), X).courses["dots only"]
    assert [(array.operation, array.nbytes) for array in dots.kept] == [("dot_general", 400)]
    assert "test_timeline.py" in dots.kept[0].line


def test_parts_with_checkpoints_lower_the_peak() -> None:
    def deep(x: Any, part: Callable[[Any], Any]) -> Any:
        for _ in range(6):
            x = part(x)
        return x

    policies = {"default": "default"}
    plain = dr.timeline(lambda x: deep(x, waves), X, policies=policies).courses["default"]
    parts = dr.timeline(lambda x: deep(x, dr.checkpoint(waves)), X, policies=policies).courses["default"]
    assert parts.peak < plain.peak - 8 * KB and parts.kept_bytes < plain.kept_bytes


def test_a_compiled_function_stands_in_its_place() -> None:
    own, compiled = (dr.timeline(f, X, policies={"default": "default"}).courses["default"] for f in (waves, jax.jit(waves)))
    assert own.live.tolist() == compiled.live.tolist() and own.kept_bytes == compiled.kept_bytes


def test_reshapes_and_broadcasts_take_no_memory() -> None:
    def f(x: Any) -> Any:
        return jnp.sin(jnp.broadcast_to(x.reshape(10, 100), (5, 10, 100)).reshape(5, 1000)[0])

    live = dr.timeline(f, X, policies={"default": "default"}).courses["default"].live
    assert live[0] < 4 * KB


def test_a_loop_has_the_peak_of_its_step() -> None:
    def f(x: Any) -> Any:
        def step(c: Any, _: Any) -> Any:
            big = lax.optimization_barrier(jnp.outer(c, c))  # 8,000,000 bytes that do not leave the step
            return c + jnp.sum(jnp.cos(big), 1), None

        return lax.scan(step, x, None, length=3)[0]

    found = dr.timeline(lambda x: f(lax.stop_gradient(x)) + x, X, policies={"default": "default"}).courses["default"]
    loop = int(found.live.argmax())
    # The product and its cosine live together in a step.
    assert 2 * 8 * 10**6 <= found.peak <= 2 * 8 * 10**6 + 6 * KB and loop < found.boundary
    assert found.peak_operation == "scan" and "test_timeline.py" in found.peak_line


def test_a_branch_has_the_larger_peak() -> None:
    def f(x: Any) -> Any:
        return lax.cond(x[0] > 0, lambda x: jnp.sum(jnp.outer(x, x), 0), lambda x: x, lax.stop_gradient(x)) + x

    peak = dr.timeline(f, X, policies={"default": "default"}).courses["default"].peak
    assert 8 * 10**6 <= peak <= 8 * 10**6 + 6 * KB


def stepped(program: Any, args: list[Any]) -> list[int]:
    """Live bytes of a flat program, found by running it: values are dropped after their last use, but for inputs and results."""
    body = program.jaxpr
    env = dict(zip(body.invars, args, strict=True))
    last = {a: k for k, eqn in enumerate(body.eqns) for a in eqn.invars if not hasattr(a, "val")}
    forever = {*body.invars, *[a for a in body.outvars if not hasattr(a, "val")]}
    found = []
    for k, eqn in enumerate(body.eqns):
        outs = eqn.primitive.bind(*[a.val if hasattr(a, "val") else env[a] for a in eqn.invars], **eqn.params)
        env.update(zip(eqn.outvars, outs if eqn.primitive.multiple_results else [outs], strict=True))
        found.append(sum(x.nbytes for x in env.values()))
        for v in list(env):
            if v not in forever and last.get(v, k) <= k:
                del env[v]
    return found


def test_live_bytes_are_those_of_a_run() -> None:
    """An interpreter that drops arrays when they were read last holds as many bytes after each operation."""
    def f(x: Any, y: Any) -> Any:
        a = jnp.sin(x) * y
        b = jnp.cos(a) + x
        c = jnp.stack([a, b])
        return jnp.sum(c * c), b

    empty = jax.make_jaxpr(lambda *args: ())()
    args = [jnp.ones(10), jnp.ones(10)]
    program = jax.make_jaxpr(f)(*args)
    assert not [eqn for eqn in program.eqns if str(eqn.primitive) in ("jit", "pjit")]
    life = life_of(program, empty, 2)
    expected = [n for n, eqn in zip(stepped(program, args), program.eqns, strict=True) if str(eqn.primitive) != "broadcast_in_dim"]
    drawn = [step.live for step in life.steps]
    views = 160  # the two broadcasts that stack() joins, which have memory in the run
    assert len(drawn) == len(expected) and all(0 <= e - d <= views for e, d in zip(expected, drawn, strict=True))
    assert [e for e, d in zip(expected, drawn, strict=True) if e == d][:4] == expected[:4]


PROGRAMS: dict[str, tuple[Callable[..., Any], tuple[Any, ...]]] = {
    "while": (lambda x: lax.while_loop(lambda c: c[0] < 5, lambda c: (c[0] + 1, jnp.sin(c[1])), (0, x))[1], (jnp.ones(3),)),
    "integers": (lambda x, k: (x[k] * 2.0, k + 1), (jnp.ones(3), jnp.arange(2))),
    "empty": (lambda x: jnp.sum(jnp.sin(x)), (jnp.ones((0, 3)),)),
    "half": (lambda x: jnp.sum(jnp.exp(x)), (jnp.ones(3, jnp.bfloat16),)),
    "complex": (lambda z: jnp.sum(jnp.abs(jnp.exp(z)) ** 2), (jnp.ones(3, complex),)),
    "identity": (lambda x: x, (jnp.ones(3),)),
    "constant": (lambda x: 3.0, (jnp.ones(3),)),
    "gradient": (dr.grad(lambda x: jnp.sum(jnp.sin(x) ** 3)), (jnp.ones(3),)),
    "vmap": (jax.vmap(lambda x: lax.scan(lambda c, x: (jnp.sin(c) + x, c), 0.0, x)[0]), (jnp.ones((3, 4)),)),
    "relu": (lambda x: jnp.sum(jax.nn.relu(x)), (jnp.ones(3),)),
    "solve": (lambda a, b: jnp.linalg.solve(a, b), (jnp.eye(3) * 2, jnp.ones(3))),
    "shapes": (lambda d: {"y": jnp.exp(d["x"])}, ({"x": jax.ShapeDtypeStruct((3,), jnp.float64)},)),
    "sharded": (jax.shard_map(lambda x: jnp.sin(x) * 2.0, mesh=jax.make_mesh((2,), ("i",), axis_types=(AxisType.Auto,)),
                              in_specs=P("i"), out_specs=P("i")), (jnp.ones(4),)),
}


@pytest.mark.parametrize("name", PROGRAMS)
def test_every_program_has_a_timeline(name: str) -> None:
    f, args = PROGRAMS[name]
    found = dr.timeline(f, *args)
    ElementTree.fromstring(found.svg)
    assert found.svg == dr.timeline(f, *args).svg
    for course in found.courses.values():
        assert course.peak >= found.inputs >= 0 and 0 <= course.boundary <= course.live.size
        assert not course.live.size or course.live.min() >= 0
        assert all(0 <= array.start < course.boundary <= array.end < course.live.size for array in course.kept)
    assert found.inputs >= sum(int(np.prod(x.shape)) * x.dtype.itemsize for x in jax.tree.leaves(args))


def test_nothing_runs() -> None:
    ran = []

    def f(x: Any) -> Any:
        jax.debug.callback(lambda: ran.append(1))
        return jnp.sin(x)

    dr.timeline(f, X, policies={"default": "default"})
    jax.effects_barrier()
    assert not ran


def test_as_text_and_numbers() -> None:
    found = dr.timeline(waves, X)
    text = str(found)
    for word in (*POLICIES, "waves: 7.81 KiB of inputs and constants", "pull, ", "4 + ", "kept", "cos"):
        assert word in text
    numbers = json.loads(json.dumps(found.to_dict()))
    assert numbers["inputs"] == KB and numbers["courses"]["default"]["live"] == found.courses["default"].live.tolist()
    assert numbers["courses"]["default"]["kept"][0]["operation"] == "sin"
    seen: list[str] = []
    dr.timeline(waves, X, progress=seen.append)
    assert seen == list(POLICIES)


def test_the_plot_is_legible(tmp_path: pathlib.Path) -> None:
    """Curves and bars stay in the frame, texts on the sheet and apart from each other, bars where arrays live."""
    def f(x: Any) -> Any:
        for _ in range(5):
            x = jnp.tanh(jnp.exp(jnp.sin(x) * x) + jnp.cos(x)) / x
        return x

    found = dr.timeline(f, X)
    sheet = found.sheet
    labels = [s for s in sheet.shapes if isinstance(s, Label)]
    assert any(label.text.startswith("forward, ") for label in labels) and any("kept for the pull" in label.text for label in labels)
    spans = []
    for label in labels:
        start = label.x - {"start": 0.0, "middle": label.width / 2, "end": label.width}[label.anchor]
        assert start >= 0 and start + label.width <= sheet.width and 0 < label.y <= sheet.height, label.text
        spans.append((start, start + label.width, label.y))
    for k, (a, b, y) in enumerate(spans):
        assert not [1 for c, d, z in spans[:k] if abs(y - z) < 9 and a < d and c < b], labels[k].text
    for shape in sheet.shapes:
        if isinstance(shape, Stroke) and shape.tip:
            assert all(LEFT - 0.1 <= x <= WIDTH - RIGHT + 0.1 and 0 <= y <= sheet.height for x, y in shape.points)
    course = found.courses["default"]
    curve = Curve("default", course.live, course.boundary, "")
    bars = [s for s in sheet.shapes if isinstance(s, Box) and s.tip]
    groups = joined(course.kept)
    assert len(bars) == min(8, len(groups)) and sum(group.nbytes for group in groups) == course.kept_bytes
    for bar, group in zip(bars, groups, strict=False):
        assert bar.x == across(group.start, curve) < (LEFT + WIDTH - RIGHT) / 2 < bar.x + bar.width
    found.save(tmp_path / "f.svg")
    found.save(tmp_path / "f.png")
    assert (tmp_path / "f.svg").read_text() == found._repr_svg_()
    assert (tmp_path / "f.png").read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    with pytest.raises(ValueError, match=r"\.svg or \.png"):
        found.save(tmp_path / "f.jpg")


def test_bad_input() -> None:
    with pytest.raises(TypeError, match="callable"):
        dr.timeline(3, X)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="arguments that hold arrays; got none"):
        dr.timeline(lambda: 1.0)
    with pytest.raises(ValueError, match="policies is empty"):
        dr.timeline(waves, X, policies={})
    with pytest.raises(TypeError, match="the policy 'mine' must be"):
        dr.timeline(waves, X, policies={"mine": 3})  # type: ignore[dict-item]
    with pytest.raises(dr.errors.NoDerivativeError):
        dr.timeline(lambda x: jax.pure_callback(lambda x: x, x, x), X)


def test_command(tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = tmp_path / "a_timed_model.py"
    model.write_text("import jax.numpy as jnp\ndef loss(w, x):\n    print('traced')\n    return jnp.sum(jnp.tanh(w @ x))\n")
    words = ["memory", f"{model}:loss", "--args", "jnp.ones((2, 3)), jnp.ones(3)"]
    assert main([*words, "-o", str(tmp_path / "f.svg")]) == 0
    out, _ = capsys.readouterr()
    assert "min_cut" in out and "72 B of inputs" in out and "traced" not in out
    ElementTree.fromstring((tmp_path / "f.svg").read_text())
    assert main([*words, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["courses"]["default"]["boundary"] == 3
    assert main([*words, "-o", "f.pdf"]) == 2
    assert main(["memory", f"{model}:nothing"]) == 2
    assert "its functions are: loss" in capsys.readouterr().err
