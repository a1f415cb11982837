"""What lessons on PyTorch's autograd call, as they call it, in both libraries."""

from __future__ import annotations

import math
import tempfile
import uuid
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from against_torch import fill, in_both


def _sine(t: Any) -> tuple[Any, Any]:
    x = t.linspace(-math.pi, math.pi, 50, dtype=t.float)
    return x, t.sin(x)


def test_a_polynomial_by_hand_on_tensors() -> None:
    def program(t: Any) -> list[Any]:
        dtype, device = t.float, t.device("cpu")
        x = t.linspace(-math.pi, math.pi, 50, device=device, dtype=dtype)
        y = t.sin(x)
        a = t.randn((), device=device, dtype=dtype)
        b, c, d = (t.full((), v, device=device, dtype=dtype) for v in (0.1, 0.2, -0.3))
        a.copy_(t.tensor(0.4))
        shown = []
        for _ in range(5):
            y_pred = a + b * x + c * x ** 2 + d * x ** 3
            loss = (y_pred - y).pow(2).sum().item()
            shown.append(loss)
            grad_y_pred = 2.0 * (y_pred - y)
            grads = [grad_y_pred.sum(), (grad_y_pred * x).sum(), (grad_y_pred * x ** 2).sum(), (grad_y_pred * x ** 3).sum()]
            for w, g in zip((a, b, c, d), grads, strict=True):
                w -= 1e-5 * g
        return [shown, f"Result: y = {a.item():.3f} + {b.item():.3f} x + {c.item():.3f} x^2 + {d.item():.3f} x^3"]

    in_both(program)


def test_a_polynomial_with_autograd() -> None:
    def program(t: Any) -> list[Any]:
        dtype = t.float
        device = t.accelerator.current_accelerator().type if t.accelerator.is_available() else "cpu"
        t.set_default_device(device)
        try:
            x = t.linspace(-1, 1, 50, dtype=dtype)
            y = t.exp(x)
            weights = [t.randn((), dtype=dtype, requires_grad=True) for _ in range(4)]
            with t.no_grad():
                for k, w in enumerate(weights):
                    w.fill_(0.3 * k - 0.4)
            a, b, c, d = weights
            first, losses = None, []
            for _ in range(6):
                y_pred = a + b * x + c * x ** 2 + d * x ** 3
                loss = (y_pred - y).pow(2).sum()
                if first is None:
                    first = loss.item()
                losses.append(round(loss.item() / first, 4))
                loss.backward()
                with t.no_grad():
                    for w in weights:
                        w -= 1e-3 * w.grad
                        w.grad = None
            return [losses, [w.item() for w in weights], str(t.get_default_device())]
        finally:
            t.set_default_device("cpu")

    in_both(program)


def test_a_polynomial_with_a_function_of_its_own() -> None:
    def program(t: Any) -> list[Any]:
        class LegendrePolynomial3(t.autograd.Function):
            @staticmethod
            def forward(ctx: Any, input: Any) -> Any:  # noqa: A002
                ctx.save_for_backward(input)
                return 0.5 * (5 * input ** 3 - 3 * input)

            @staticmethod
            def backward(ctx: Any, grad_output: Any) -> Any:
                input, = ctx.saved_tensors  # noqa: A001
                return grad_output * 1.5 * (5 * input ** 2 - 1)

        x, y = _sine(t)
        a = t.full((), 0.0, device="cpu", dtype=t.float, requires_grad=True)
        b = t.full((), -1.0, dtype=t.float, requires_grad=True)
        c = t.full((), 0.0, dtype=t.float, requires_grad=True)
        d = t.full((), 0.3, dtype=t.float, requires_grad=True)
        losses = []
        for _ in range(5):
            P3 = LegendrePolynomial3.apply
            y_pred = a + b * P3(c + d * x)
            loss = (y_pred - y).pow(2).sum()
            losses.append(loss.item())
            loss.backward()
            with t.no_grad():
                a -= 5e-4 * a.grad
                b -= 5e-4 * b.grad
                c -= 5e-4 * c.grad
                d -= 5e-4 * d.grad
                a.grad = b.grad = c.grad = d.grad = None
        return [losses, a, b, c, d]

    in_both(program, 1e-4)


def test_a_polynomial_with_nn_and_optim() -> None:
    def program(t: Any) -> list[Any]:
        x, y = _sine(t)
        p = t.tensor([1, 2, 3])
        xx = x.unsqueeze(-1).pow(p)
        shown: list[Any] = [xx.shape]
        model = fill(t, t.nn.Sequential(t.nn.Linear(3, 1), t.nn.Flatten(0, 1)))
        loss_fn = t.nn.MSELoss(reduction="sum")
        for _ in range(3):
            loss = loss_fn(model(xx), y)
            model.zero_grad()
            loss.backward()
            with t.no_grad():
                for param in model.parameters():
                    param -= 1e-6 * param.grad
            shown.append(loss.item())
        optimizer = t.optim.RMSprop(model.parameters(), lr=1e-3, foreach=False)
        for _ in range(3):
            loss = loss_fn(model(xx), y)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            shown.append(loss.item())
        linear = model[0]
        return [*shown, linear.bias.item(), linear.weight[:, 0].item(), linear.weight[:, 2].item()]

    in_both(program, 1e-4)


def test_a_polynomial_as_a_module_and_as_one_of_changing_depth() -> None:
    def program(t: Any) -> list[Any]:
        class Polynomial3(t.nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.a, self.b = t.nn.Parameter(t.randn(())), t.nn.Parameter(t.randn(()))
                self.c, self.d = t.nn.Parameter(t.randn(())), t.nn.Parameter(t.randn(()))

            def forward(self, x: Any) -> Any:
                return self.a + self.b * x + self.c * x ** 2 + self.d * x ** 3

            def string(self) -> str:
                return f"y = {self.a.item():.4f} + {self.b.item():.4f} x + {self.c.item():.4f} x^2 + {self.d.item():.4f} x^3"

        class DynamicNet(Polynomial3):
            def __init__(self) -> None:
                super().__init__()
                self.e = t.nn.Parameter(t.randn(()))
                self.calls = 0

            def forward(self, x: Any) -> Any:
                y = super().forward(x)
                self.calls += 1
                for exp in range(4, (4, 5, 6)[self.calls % 3]):
                    y = y + self.e * x ** exp
                return y

        x, y = _sine(t)
        out = []
        for net in (Polynomial3(), DynamicNet()):
            model = fill(t, net)
            criterion = t.nn.MSELoss(reduction="sum")
            optimizer = t.optim.SGD(model.parameters(), lr=1e-8, momentum=0.9)
            losses = []
            for _ in range(4):
                loss = criterion(model(x), y)
                losses.append(loss.item())
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
            out += [losses, model.string(), [name for name, _ in model.named_parameters()]]
        return out

    in_both(program, 1e-4)


def test_first_steps_with_autograd() -> None:
    def program(t: Any) -> list[Any]:
        a = t.tensor([2., 3.], requires_grad=True)
        b = t.tensor([6., 4.], requires_grad=True)
        Q = 3 * a ** 3 - b ** 2
        external_grad = t.tensor([1., 1.])
        Q.backward(gradient=external_grad)
        shown = [9 * a ** 2 == a.grad, -2 * b == b.grad]
        x, y, z = t.rand(5, 5), t.rand(5, 5), t.rand((5, 5), requires_grad=True)
        shown += [f"Does `a` require gradients?: {(x + y).requires_grad}", (x + z).requires_grad]
        # f(x) of one layer
        x, y = t.ones(5), t.zeros(3)
        w = t.randn(5, 3, requires_grad=True)
        b = t.randn(3, requires_grad=True)
        with t.no_grad():
            w.copy_(t.arange(15.).reshape(5, 3) / 10)
            b.zero_()
        z = t.matmul(x, w) + b
        loss = t.nn.functional.binary_cross_entropy_with_logits(z, y)
        shown += [type(z.grad_fn).__name__, type(loss.grad_fn).__name__]
        loss.backward()
        shown += [w.grad, b.grad]
        with t.no_grad():
            z = t.matmul(x, w) + b
        shown += [z.requires_grad, (t.matmul(x, w) + b).detach().requires_grad]
        inp = t.eye(4, 5, requires_grad=True)
        out = (inp + 1).pow(2).t()
        out.backward(t.ones_like(out), retain_graph=True)
        shown.append(inp.grad.clone())
        out.backward(t.ones_like(out), retain_graph=True)
        shown.append(inp.grad.clone())
        inp.grad.zero_()
        out.backward(t.ones_like(out), retain_graph=True)
        return [*shown, inp.grad]

    in_both(program)


@pytest.mark.thorough  # its layers and losses are compared one by one in test_layers.py
def test_a_network_for_images() -> None:
    def program(t: Any) -> list[Any]:
        nn: Any = t.nn
        F = t.nn.functional

        class Net(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.conv1, self.conv2 = nn.Conv2d(1, 2, 5), nn.Conv2d(2, 4, 5)
                self.fc1, self.fc2 = nn.Linear(4 * 5 * 5, 12), nn.Linear(12, 10)

            def forward(self, input: Any) -> Any:  # noqa: A002
                s2 = F.max_pool2d(F.relu(self.conv1(input)), (2, 2))
                s4 = F.max_pool2d(F.relu(self.conv2(s2)), 2)
                return self.fc2(F.relu(self.fc1(t.flatten(s4, 1))))

        net = fill(t, Net())
        params = list(net.parameters())
        image = t.sin(t.arange(32. * 32)).view(1, 1, 32, 32)
        out = net(image)
        net.zero_grad()
        out.backward(t.ones(1, 10), retain_graph=True)
        target = t.linspace(0, 1, 10).view(1, -1)
        loss = nn.MSELoss()(net(image), target)
        names = [type(n).__name__ for n in (loss.grad_fn, loss.grad_fn.next_functions[0][0])]
        net.zero_grad()
        before = net.conv1.bias.grad
        loss.backward()
        optimizer = t.optim.SGD(net.parameters(), lr=0.01)
        optimizer.step()
        return [len(params), params[0].size(), out, names, before, net.conv1.bias.grad, net.fc2.bias.detach()]

    in_both(program, 1e-4)


@pytest.mark.thorough
def test_the_fundamentals_of_autograd() -> None:
    def program(t: Any) -> list[Any]:
        a = t.linspace(0., 2. * math.pi, steps=25, requires_grad=True)
        b = t.sin(a)
        c = 2 * b
        d = c + 1
        out = d.sum()
        chain, node = [], d.grad_fn
        while node is not None:
            chain.append(type(node).__name__)
            node = node.next_functions[0][0] if node.next_functions else None
        out.backward()
        shown = [a.grad, chain, a.grad_fn]

        class TinyModel(t.nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.layer1, self.relu, self.layer2 = t.nn.Linear(8, 4), t.nn.ReLU(), t.nn.Linear(4, 2)

            def forward(self, x: Any) -> Any:
                return self.layer2(self.relu(self.layer1(x)))

        some_input = t.sin(t.arange(32.)).reshape(4, 8)
        ideal_output = t.randn(4, 2, requires_grad=False) * 0
        model = fill(t, TinyModel())
        optimizer = t.optim.SGD(model.parameters(), lr=0.001)
        loss = (ideal_output - model(some_input)).pow(2).sum()
        loss.backward()
        optimizer.step()
        shown.append(model.layer2.weight[0][:3])
        optimizer.zero_grad(set_to_none=False)
        shown.append(model.layer2.weight.grad)
        a = t.ones(2, 3, requires_grad=True)
        with t.no_grad():
            c2 = a + 1

        def add_tensors1(x: Any, y: Any) -> Any:
            return x + y

        @t.no_grad()
        def add_tensors2(x: Any, y: Any) -> Any:
            return x + y

        x = t.rand(5, requires_grad=True)
        y = x.detach()
        shown += [c2.requires_grad, add_tensors1(a, a).requires_grad, add_tensors2(a, a).requires_grad, y.requires_grad]
        x = t.ones(3, requires_grad=True)
        y = x * 2
        while y.data.norm() < 1000:
            y = y * 2
        y.backward(t.tensor([0.1, 1.0, 0.0001], dtype=t.float))
        shown.append(x.grad)

        def exp_adder(x: Any, y: Any) -> Any:
            return 2 * x.exp() + 3 * y

        inputs = (t.tensor([0.3]), t.tensor([0.7]))
        shown += [t.autograd.functional.jacobian(exp_adder, inputs)]

        def do_some_doubling(x: Any) -> Any:
            y = x * 2
            while y.data.norm() < 1000:
                y = y * 2
            return y

        my_gradients = t.tensor([0.1, 1.0, 0.0001])
        shown += [t.autograd.functional.vjp(do_some_doubling, t.tensor([0.3, 0.4, 0.5]), v=my_gradients)]
        return shown

    in_both(program, 1e-4)


def test_a_chapter_on_automatic_differentiation() -> None:
    def program(t: Any) -> list[Any]:
        x = t.arange(4.0)
        x.requires_grad_(True)
        shown = [x.grad]
        y = 2 * t.dot(x, x)
        shown.append(str(y))
        y.backward()
        shown.append(x.grad == 4 * x)
        x.grad.zero_()
        y = x.sum()
        y.backward()
        shown.append(x.grad.clone())
        x.grad.zero_()
        y = x * x
        y.backward(gradient=t.ones(len(y)))
        shown.append(x.grad.clone())
        x.grad.zero_()
        u = (x * x).detach()
        (u * x).sum().backward()
        shown.append(x.grad == u)

        def f(a: Any) -> Any:
            b = a * 2
            while b.norm() < 1000:
                b = b * 2
            return b if b.sum() > 0 else 100 * b

        a = t.randn(size=(), requires_grad=True)
        d = f(a)
        d.backward()
        shown.append(t.allclose(a.grad, d / a))  # 100 * b rounds
        x = t.randn(size=(3,), requires_grad=True)
        t.sin(x).backward(gradient=t.ones(size=(3,)))
        return [*shown, t.allclose(input=x.grad, other=t.cos(x))]

    in_both(program)


def test_hooks_on_saved_tensors() -> None:
    def program(t: Any) -> list[Any]:
        shown: list[Any] = []
        x = t.full((5,), 1.5, requires_grad=True)
        y = x.pow(2)
        shown.append(x.equal(y.grad_fn._saved_self))
        y = x.exp()
        shown.append(y.equal(y.grad_fn._saved_result))
        with tempfile.TemporaryDirectory() as folder:
            def pack_hook(tensor: Any) -> str:
                name = str(Path(folder) / str(uuid.uuid4()))
                t.save(tensor, name)
                return name

            def unpack_hook(name: str) -> Any:
                return t.load(name)

            with t.autograd.graph.saved_tensors_hooks(pack_hook, unpack_hook):
                y = x.pow(2)
            y.sum().backward()
        shown.append(x.grad)
        x = t.ones(5, requires_grad=True)
        with t.autograd.graph.saved_tensors_hooks(lambda x: x * 4, lambda x: x):
            y = t.pow(x, 2)
        y.sum().backward()
        shown.append(x.grad)
        with t.autograd.graph.save_on_cpu():
            z = (x * x).sin()
        z.sum().backward()
        return [*shown, x.grad]

    in_both(program)


def test_jacobians_and_hessians_with_func() -> None:
    def program(t: Any) -> list[Any]:
        F = t.nn.functional
        from_func = t.func

        def predict(weight: Any, bias: Any, x: Any) -> Any:
            return F.linear(x, weight, bias).tanh()

        D = 4
        weight, bias, x = t.sin(t.arange(16.)).reshape(D, D), t.arange(4.) / 3, t.cos(t.arange(4.))
        xp = x.clone().requires_grad_()
        unit_vectors = t.eye(D)
        by_rows = t.stack([t.autograd.grad(predict(weight, bias, xp), xp, vec)[0] for vec in unit_vectors])
        _, vjp_fn = from_func.vjp(lambda x: predict(weight, bias, x), x)
        ft_jacobian, = from_func.vmap(vjp_fn)(unit_vectors)
        shown = [by_rows, ft_jacobian, from_func.jacrev(predict, argnums=2)(weight, bias, x),
                 from_func.jacfwd(predict, argnums=2)(weight, bias, x), from_func.hessian(predict, argnums=2)(weight, bias, x),
                 from_func.jacfwd(from_func.jacrev(predict, argnums=2), argnums=2)(weight, bias, x)]
        batch = t.stack([x, 2 * x, 3 * x])
        shown.append(from_func.vmap(from_func.jacrev(predict, argnums=2), in_dims=(None, None, 0))(weight, bias, batch))
        shown.append(from_func.jvp(lambda x: predict(weight, bias, x), (x,), (t.ones(D),)))
        shown.append(from_func.jacrev(predict, argnums=(0, 1), chunk_size=2)(weight, bias, x))
        model = fill(t, t.nn.Linear(4, 2))
        params = {k: v.detach() for k, v in model.named_parameters()}

        def loss(params: Any, sample: Any, target: Any) -> Any:
            batch, targets = sample.unsqueeze(0), target.unsqueeze(0)
            return F.mse_loss(from_func.functional_call(model, params, (batch,)), targets)

        per_sample = from_func.vmap(from_func.grad(loss), in_dims=(None, 0, 0))(params, batch, t.zeros(3, 2))
        shown.append([per_sample[k] for k in sorted(per_sample)])
        return shown

    in_both(program, 1e-4)


def test_the_example_with_numpy_functions() -> None:
    def program(t: Any) -> list[Any]:
        class BadFFT(t.autograd.Function):
            @staticmethod
            def forward(ctx: Any, input: Any) -> Any:  # noqa: A002
                return t.as_tensor(np.abs(np.fft.rfft2(input.detach().numpy())), dtype=input.dtype)

            @staticmethod
            def backward(ctx: Any, grad_output: Any) -> Any:
                return grad_output.new_tensor(np.fft.irfft2(grad_output.detach().numpy()))

        x = t.sin(t.arange(64.)).reshape(8, 8).requires_grad_()
        result = BadFFT.apply(x)
        result.backward(t.ones(result.size()))
        return [result.detach(), x.grad]

    in_both(program, 1e-4)
