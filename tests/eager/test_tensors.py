"""Tensors: printing, creation, devices, and the graph and its drawings."""

from __future__ import annotations

from typing import Any
from xml.etree import ElementTree

import pytest
from against_torch import in_both, message

from dualrev import eager as torch
from dualrev.eager.models import BasicBlock
from dualrev.inspection.pictures.layers import layered


def test_tensors_print_as_in_pytorch() -> None:
    def program(t: Any) -> list[str]:
        x = t.tensor([5.0], requires_grad=True)
        y = x ** 2
        y.backward()
        shown = [x.grad, x, y, x + 1, t.tensor(3.5), t.tensor([[1.0, 2.5], [3.25, 4.0]]), t.tensor([True, False]),
                 t.tensor([1e-6, 1.0]), t.tensor([1e9, 1.0]), t.zeros(2, 2, 2), t.tensor([1, 20, 3]),
                 t.tensor([1.0, 2.0], dtype=t.float64), t.ones(1000, 1000), t.tensor([float("nan"), float("inf"), 1.5]),
                 t.tensor([-1.0, 1.0]), t.arange(30.0), t.tensor([])]
        return [str(s) for s in shown] + [repr(x.shape), repr(x.dtype), str(x.device)]

    assert in_both(program)[0] == "tensor([10.])"


def test_creation() -> None:
    def program(t: Any) -> list[Any]:
        a = t.arange(6.0).reshape(2, 3)
        return [t.zeros(2, 3), t.ones((2,)), t.full((2, 2), 7.0), t.arange(1, 7, 2), t.linspace(0, 1, 5), t.eye(3), t.zeros_like(a),
                t.ones_like(a), t.full_like(a, 2.0), a.new_zeros(2), t.tensor([[1, 2], [3, 4]]), t.tensor([1, 2.5]),
                t.tensor(a.tolist())]

    in_both(program)
    assert torch.rand(2, 3).shape == (2, 3) and torch.randn_like(torch.ones(4)).dtype == torch.float32
    torch.manual_seed(3)
    first = torch.rand(3).tolist()
    torch.manual_seed(3)
    assert torch.rand(3).tolist() == first != torch.rand(3).tolist()


def test_leaves_and_names_of_nodes() -> None:
    def program(t: Any) -> list[Any]:
        x = t.ones(2, 2, requires_grad=True)
        y = x + 2
        v = t.ones(2, requires_grad=True)
        computed = [y, y * y, y - 1, y / 2, y ** 2, y.mean(), y.sum(), v.dot(v), x.mm(x), x @ v, y.relu(), y.exp(), y.t(), y.view(4),
                    y[0], y.clone(), -y, y.sigmoid(), y.tanh(), y.log(), y.sqrt(), y.unsqueeze(0), t.cat([y, y]), t.stack([y, y]),
                    y.max(), y.abs()]
        names = [type(z.grad_fn).__name__ for z in computed]
        plain = t.ones(2)
        return [*names, x.grad_fn, x.is_leaf, y.is_leaf, (plain * 2).is_leaf, y.detach().is_leaf, y.requires_grad, plain.requires_grad,
                plain.requires_grad_().requires_grad, x.grad, x.data, y.tolist(), y.sum().item(), list(x.size()), x.size(0), x.dim(),
                x.numel(), y.clone()]

    in_both(program)


def test_where_there_is_no_gpu_cuda_says_so() -> None:
    with pytest.raises(RuntimeError, match="No CUDA GPUs are available"):
        torch.ones(2).cuda()
    x = torch.ones(2)
    assert x.cpu() is x and x.to("cpu") is x and x.to(torch.float64).dtype == torch.float64


def test_the_graph_is_built_while_python_runs() -> None:
    def program(t: Any) -> list[Any]:
        a = t.tensor([0.3, -0.2], requires_grad=True)
        b = a * 2
        while b.norm() < 1000:
            b = b * 2
        c = b if b.sum() > 0 else 100 * b
        c.sum().backward()
        assert t.allclose(a.grad * a, c)
        return [a.grad, c]

    in_both(program)


def test_nodes_and_their_next_functions() -> None:
    def program(t: Any) -> list[Any]:
        x = t.ones(2, requires_grad=True)
        y = (x * 2 + 1).mean()
        node, names = y.grad_fn, []
        while node is not None:
            names.append(node.name().split("::")[-1])
            node = node.next_functions[0][0] if node.next_functions else None
        return [names, [n is None for n, _ in (x * 2).grad_fn.next_functions]]

    assert in_both(program)[0] == ["MeanBackward0", "AddBackward0", "MulBackward0", "AccumulateGrad"]


def test_drawings_of_graphs() -> None:
    x = torch.ones(3, requires_grad=True)
    x.name = "x"
    picture = torch.graph.draw((x.exp() * x).sum())
    assert [text[0] for _, text in picture.nodes] == ["leaf x", "ExpBackward0", "MulBackward0", "SumBackward0", "output"]
    assert picture.saved_bytes == 24 and "requires_grad" in picture.svg and "ExpBackward0" in picture.dot
    assert picture._repr_svg_().startswith("<svg")


def test_a_drawing_of_a_block_is_legible() -> None:
    """Boxes as wide as their text, none over another, edges around them, leaves in a colour of their own, with names."""
    nn = torch.nn
    block = BasicBlock(2, 3, 2, nn.Sequential(nn.Conv2d(2, 3, 1, 2, bias=False), nn.BatchNorm2d(3)))
    picture = torch.graph.draw(block(torch.ones(1, 2, 4, 4)), block)
    svg = ElementTree.fromstring(picture.svg)
    kinds = [e.tag.rpartition("}")[2] for e in svg]
    boxes = [{k: float(e.get(k, 0)) for k in ("x", "y", "width", "height")} for e in svg.iter() if e.get("rx")]
    colors = [e.get("fill") for e in svg.iter() if e.get("rx")]
    assert len(boxes) == 19 and kinds.count("path") == 18 and len(set(colors)) == 3 and colors.count("#dff0d8") == 9
    for i, a in enumerate(boxes):
        for b in boxes[:i]:
            assert (a["x"] >= b["x"] + b["width"] or b["x"] >= a["x"] + a["width"] or a["y"] >= b["y"] + b["height"]
                    or b["y"] >= a["y"] + a["height"])
    for box, (_, text) in zip(boxes, picture.nodes, strict=True):
        assert box["width"] >= 6.7 * max(map(len, text)) and box["height"] >= 12 * len(text) and box["x"] >= 0
    words = "".join(svg.itertext())
    for word in ("downsample.1.weight", "float32[3, 2, 3, 3]", "requires_grad", "ConvolutionBackward0", "saves", "saved for backward"):
        assert word in words
    sizes, edges = [(9.0, 5.0)] * 4, [(0, 1), (1, 2), (2, 3), (0, 3)]
    places, routes, _ = layered(sizes, edges, lambda i: False)
    assert [y for _, y in places] == sorted({y for _, y in places}) and len(routes[3]) == 4
    assert all(abs(x - places[k][0]) > 4.5 for k, (x, _) in zip((1, 2), routes[3][1:3], strict=True))


def test_errors_of_shapes_are_those_of_pytorch() -> None:
    def program(t: Any) -> list[str]:
        a, b = t.ones(2, 3), t.ones(4, 5)
        return [message(lambda: a + b), message(lambda: a @ b), message(lambda: a.view(7)), message(lambda: a.sum(dim=2), IndexError),
                message(lambda: a[5], IndexError), message(lambda: a.item()), message(lambda: bool(a)),
                message(lambda: a.requires_grad_().numpy()), message(lambda: t.stack([a, b])),
                message(lambda: t.tensor([1]).requires_grad_()), message(lambda: a + "x", TypeError)[:11],
                message(lambda: t.tensor("a"), TypeError), message(lambda: a["a"], TypeError), message(lambda: a[1.5], IndexError)]

    in_both(program)
