"""Mixed precision, compiled functions, settings of the process, samplers, and hooks on several tensors."""

from __future__ import annotations

import warnings
from typing import Any

from against_torch import fill, in_both, message

from dualrev import eager as torch


def test_dtypes_under_autocast_are_those_of_pytorch() -> None:
    def program(t: Any) -> list[Any]:
        F, layer = t.nn.functional, fill(t, t.nn.Linear(3, 2))
        x = t.arange(6.0).reshape(2, 3)
        with t.autocast("cpu"):
            y = layer(x)
            outs = [y, x @ x.T, t.mm(x, x.T), t.cat([y, x[:, :2]]), t.stack([y, y]), y + 1, y.softmax(-1), y.exp(),
                    F.mse_loss(y, y * 0), F.cross_entropy(y, t.tensor([0, 1])), F.conv1d(x[None], t.ones(2, 2, 1)),
                    t.einsum("ij,kj->ik", x, x),
                    x.double() @ x.double().T, F.scaled_dot_product_attention(x[None], x[None], x[None])]
            inside = t.is_autocast_enabled("cpu")
            with t.autocast("cpu", enabled=False):
                outs.append(x @ x.T)
            loss = F.mse_loss(y, t.zeros(2, 2))
        loss.backward()

        @t.autocast("cpu", dtype=t.bfloat16)
        def decorated(a: Any) -> Any:
            return a @ a.T

        return [[str(o.dtype) for o in outs], [o.float() for o in outs], inside, t.is_autocast_enabled("cpu"), loss, layer.weight.grad,
                str(layer.weight.grad.dtype), str(decorated(x).dtype), str(t.get_autocast_dtype("cpu"))]

    in_both(program, 0.02)


def test_a_function_casts_its_inputs_under_autocast() -> None:
    def program(t: Any) -> list[Any]:
        seen = []

        class Product(t.autograd.Function):  # type: ignore[misc, name-defined]
            @staticmethod
            @t.amp.custom_fwd(device_type="cpu", cast_inputs=t.float32)
            def forward(ctx: Any, a: Any, b: Any) -> Any:
                ctx.save_for_backward(a, b)
                seen.append(str((a @ b).dtype))
                return a @ b

            @staticmethod
            @t.amp.custom_bwd(device_type="cpu")
            def backward(ctx: Any, g: Any) -> Any:
                a, b = ctx.saved_tensors
                seen.append(str((g @ b.T).dtype))
                return g @ b.T, a.T @ g

        a = t.ones(2, 2, requires_grad=True)
        with t.autocast("cpu"):
            y = Product.apply(a, a.detach())
        y.sum().backward()
        return [seen, a.grad]

    in_both(program)


def test_scaled_gradients() -> None:
    def program(t: Any) -> list[Any]:
        w, found = t.tensor([1.0], requires_grad=True), []
        optimizer = t.optim.SGD([w], lr=0.1)
        scaler = t.amp.GradScaler("cpu", init_scale=8.0, growth_interval=2)
        for k in range(4):
            optimizer.zero_grad()
            scaler.scale((w * (float("inf") if k == 2 else w)).sum()).backward()
            if k:
                scaler.unscale_(optimizer)
            scaler.step(optimizer)
            scaler.update()
            found += [w.detach().clone(), scaler.get_scale()]
        other = t.amp.GradScaler("cpu")
        other.load_state_dict(scaler.state_dict())
        w.grad = t.ones(1)
        scaler.unscale_(optimizer)
        return [*found, sorted(scaler.state_dict().items()), other.get_scale(), message(lambda: scaler.unscale_(optimizer)),
                message(lambda: t.amp.GradScaler("cpu").step(optimizer), AssertionError)]

    in_both(program)


def test_mixed_precision_of_a_gpu_that_is_not_there_is_off() -> None:
    if torch.cuda.is_available():
        return
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        scaler = torch.cuda.amp.GradScaler()
        with torch.autocast("cuda"), torch.cuda.amp.autocast():
            y = torch.ones(2, 2) @ torch.ones(2, 2)
    assert len(caught) == 3
    assert y.dtype == torch.float32
    assert scaler.scale(y) is y
    assert not scaler.is_enabled()


def test_compiled_functions_can_be_differentiated() -> None:
    def program(t: Any) -> list[Any]:
        @t.compile(mode="default") if t is torch else (lambda f: f)  # PyTorch's compiler takes a minute
        def f(x: Any) -> Any:
            return x * 2 if x.sum() > 0 else x

        x, w = t.ones(2, requires_grad=True), t.ones(2, requires_grad=True)
        for _ in range(2):
            f(x).sum().backward()
        optimizer = t.optim.SGD([w], lr=0.1)

        def step(x: Any) -> Any:
            optimizer.zero_grad()
            loss = ((w * x) ** 2).sum()
            loss.backward()
            optimizer.step()
            return loss

        run = t.compile(step) if t is torch else step
        return [x.grad, f(-t.ones(2)), f(t.ones(2)), *[run(t.tensor([1.0, 2.0])).detach().clone() for _ in range(4)], w]

    in_both(program)


def test_settings_of_the_process() -> None:
    def program(t: Any) -> list[Any]:
        before = t.get_num_threads()
        t.set_num_threads(2)
        found: list[Any] = [t.get_num_threads()]
        t.set_num_threads(before)
        t.use_deterministic_algorithms(True, warn_only=True)
        found += [t.are_deterministic_algorithms_enabled(), t.is_deterministic_algorithms_warn_only_enabled()]
        t.use_deterministic_algorithms(False)
        flag = t.backends.cudnn.deterministic
        t.backends.cudnn.deterministic = True
        found += [t.backends.cudnn.deterministic, t.backends.mps.is_available(), t.get_float32_matmul_precision()]
        t.backends.cudnn.deterministic = flag
        t.manual_seed(1)
        with t.random.fork_rng():
            a = t.rand(2)
        return [*found, bool((t.rand(2) == a).all()), message(lambda: t.set_num_threads(0))]

    in_both(program)


def test_samplers_and_datasets() -> None:
    def program(t: Any) -> list[Any]:
        D = t.utils.data

        class Stream(D.IterableDataset):  # type: ignore[misc, name-defined]
            def __init__(self, n: int):
                self.n = n

            def __iter__(self) -> Any:
                return iter(range(self.n))

        pairs, named = D.StackDataset(t.arange(3.0), t.arange(3)), D.StackDataset(a=[1, 2], b=[3, 4])
        some = D.DataLoader(D.TensorDataset(t.arange(4.0)), sampler=D.SubsetRandomSampler([2]))
        return [sorted(D.SubsetRandomSampler([3, 5, 7])), len(D.SubsetRandomSampler([3, 5, 7])),
                sorted(D.WeightedRandomSampler([0.0, 1.0, 1.0], 2, False)), list(D.WeightedRandomSampler(t.tensor([0.0, 1.0, 0.0]), 3)),
                list(pairs[1]), len(pairs), sorted(named[1].items()), list(D.ChainDataset([Stream(2), Stream(3)])), [x for x, in some],
                message(lambda: D.WeightedRandomSampler([1.0], 0), ValueError),
                message(lambda: D.WeightedRandomSampler([[1.0]], 1), ValueError)]

    in_both(program)


def test_hooks_on_several_tensors_and_changes_of_saved_ones() -> None:
    def program(t: Any) -> list[Any]:
        a, b, c = [t.ones(1, requires_grad=True) for _ in range(3)]
        seen: list[Any] = []
        hook = t.autograd.graph.register_multi_grad_hook
        handle = hook((a, b, c), lambda grads: seen.append([g if g is None else g.item() for g in grads]))
        (a * b * 2).sum().backward()
        (a + b + c).sum().backward()
        handle.remove()
        (a + b + c).sum().backward()
        y = a * 2
        z = y * 3
        hook((y, z), lambda g: seen.append(g.item()), mode="any")
        z.backward()
        with t.autograd.graph.allow_mutation_on_saved_tensors():
            x = t.tensor([2.0], requires_grad=True)
            y = x * 2
            z = y ** 2
            y.zero_()
            z.backward()
        return [seen, x.grad]

    in_both(program)


def test_examples_in_chunks_and_stacked_models() -> None:
    def program(t: Any) -> list[Any]:
        x = t.arange(15.0).reshape(5, 3)
        models = [fill(t, t.nn.Linear(2, 1)) for _ in range(3)]
        params, buffers = t.func.stack_module_state(models)
        both = t.vmap(lambda p, v: t.func.functional_call(models[0], p, (v,)), (0, None))(params, t.ones(4, 2))
        return [t.vmap(lambda r: r.sum() * 2, chunk_size=2)(x),
                t.vmap(lambda r, s: (r + s, r.sum()), (0, None), chunk_size=2)(x, t.ones(3)),
                t.vmap(lambda r: r * 2, 1, 1, chunk_size=2)(x), message(lambda: t.vmap(lambda r: r, chunk_size=0), ValueError),
                params["weight"], params["weight"].is_leaf, params["weight"].requires_grad, len(buffers), both]

    in_both(program)
