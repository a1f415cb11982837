"""Whole programs: equations, processes, control, and programs that differentiate derivatives."""

from __future__ import annotations

import copy
import math
from typing import Any

from programs.starting import fill, trained, waves


def equation_in_a_network(t: Any) -> list[Any]:
    """A network that satisfies u'' = -sin(x) at some points, with u(0) = u(pi) = 0."""
    model = fill(t, t.nn.Sequential(t.nn.Linear(1, 8), t.nn.Tanh(), t.nn.Linear(8, 1)))
    inside = t.linspace(0.1, 3.0, 9).reshape(-1, 1).requires_grad_()
    ends = t.tensor([[0.0], [math.pi]])

    def loss() -> Any:
        u = model(inside)
        first, = t.autograd.grad(u, inside, t.ones_like(u), create_graph=True)
        second, = t.autograd.grad(first, inside, t.ones_like(first), create_graph=True)
        return (second + t.sin(inside)).pow(2).mean() + model(ends).pow(2).mean()

    return trained(t, model, t.optim.Adam(model.parameters(), lr=1e-2), loss)


def neural_equation(t: Any) -> list[Any]:
    """A differential equation whose right side is a network, by Runge-Kutta steps."""
    f = fill(t, t.nn.Sequential(t.nn.Linear(2, 6), t.nn.Tanh(), t.nn.Linear(6, 2)))
    target = t.stack([t.tensor([math.cos(k / 5), math.sin(k / 5)]) for k in range(6)])

    def loss() -> Any:
        y, path, h = target[0], [target[0]], 0.2
        for _ in range(5):
            a = f(y)
            b = f(y + h / 2 * a)
            c = f(y + h / 2 * b)
            y = y + h / 6 * (a + 2 * b + 2 * c + f(y + h * c))
            path.append(y)
        return ((t.stack(path) - target) ** 2).mean()

    return trained(t, f, t.optim.RMSprop(f.parameters(), lr=1e-2), loss)


def gaussian_process(t: Any) -> list[Any]:
    """Marginal likelihood with Cholesky factors; jitter is added where the matrix is not positive definite."""
    x, y = t.linspace(0, 3, 8), t.sin(t.linspace(0, 3, 8) * 2)
    scale, noise = t.tensor(0.0, requires_grad=True), t.tensor(-3.0, requires_grad=True)

    def factor(k: Any) -> Any:
        jitter = 0.0
        for _ in range(8):
            try:
                return t.linalg.cholesky(k + jitter * t.eye(8)), jitter
            except t.linalg.LinAlgError:
                jitter = max(10 * jitter, 1e-6)
        raise AssertionError("no jitter was enough")

    optimizer = t.optim.Adam([scale, noise], lr=0.1)
    found = []
    for _ in range(4):
        optimizer.zero_grad()
        k = t.exp(-0.5 * ((x[:, None] - x[None, :]) / scale.exp()) ** 2) + noise.exp() * t.eye(8)
        low, _ = factor(k)
        alpha = t.linalg.solve(low.T, t.linalg.solve(low, y))
        loss = 0.5 * y @ alpha + low.diagonal().log().sum()
        loss.backward()
        optimizer.step()
        found.append(loss.item())
    _, jitter = factor(-1e-5 * t.eye(8) + t.ones(8, 8))
    return [*found, scale, noise, jitter]


def learning_to_learn(t: Any) -> list[Any]:
    """Model-agnostic meta-learning: gradients through a step of gradient descent."""
    w = [(waves(t, 1, 6) * 0.5).requires_grad_(), t.zeros(6, requires_grad=True), (waves(t, 6, 1, k=2.0) * 0.5).requires_grad_()]

    def net(w: list[Any], x: Any) -> Any:
        return t.tanh(x @ w[0] + w[1]) @ w[2]

    optimizer = t.optim.Adam(w, lr=0.01)
    x = t.linspace(-1, 1, 6).unsqueeze(1)
    found = []
    for _ in range(3):
        total = t.tensor(0.0)
        for phase in (0.0, 0.5):
            y = t.sin(3 * x + phase)
            inner = ((net(w, x[::2]) - y[::2]) ** 2).mean()
            grads = t.autograd.grad(inner, w, create_graph=True)
            fast = [p - 0.1 * g for p, g in zip(w, grads, strict=True)]
            total = total + ((net(fast, x[1::2]) - y[1::2]) ** 2).mean()
        optimizer.zero_grad()
        total.backward()
        optimizer.step()
        found.append(total.item())
    return [*found, w]


def denoising(t: Any) -> list[Any]:
    """A diffusion model in one dimension: a network that finds the noise, and its sampler."""
    model = fill(t, t.nn.Sequential(t.nn.Linear(3, 8), t.nn.SiLU(), t.nn.Linear(8, 2)))
    beta = t.linspace(1e-3, 0.2, 8)
    kept = t.cumprod(1 - beta, dim=0)
    x, noise, step = waves(t, 6, 2), waves(t, 6, 2, k=3.0), t.arange(6) % 8

    def loss() -> Any:
        a = kept[step].unsqueeze(1)
        noisy = a.sqrt() * x + (1 - a).sqrt() * noise
        return t.nn.functional.mse_loss(model(t.cat([noisy, step[:, None] / 8], 1)), noise)

    found = trained(t, model, t.optim.Adam(model.parameters(), lr=1e-2), loss)
    with t.no_grad():
        z = noise.clone()
        for k in reversed(range(8)):
            e = model(t.cat([z, t.full((6, 1), k / 8)], 1))
            z = (z - beta[k] / (1 - kept[k]).sqrt() * e) / (1 - beta[k]).sqrt()
    return [*found, z]


def radiance_field(t: Any) -> list[Any]:
    """Rays through a field with encoded places, composited along their length."""
    model = fill(t, t.nn.Sequential(t.nn.Linear(15, 8), t.nn.ReLU(), t.nn.Linear(8, 4)))
    with t.no_grad():
        for p in model.parameters():
            p.mul_(0.3)
    start, ahead = waves(t, 5, 3), t.nn.functional.normalize(waves(t, 5, 3, k=2.0), dim=-1)
    depth = t.linspace(0.5, 2.0, 4)
    colour = waves(t, 5, 3, k=4.0).abs()

    def loss() -> Any:
        places = start[:, None] + ahead[:, None] * depth[None, :, None]
        encoded = t.cat([places, *[f(2.0 ** k * places) for k in range(2) for f in (t.sin, t.cos)]], -1)
        out = model(encoded)
        density, rgb = t.relu(out[..., 0]), t.sigmoid(out[..., 1:])
        alpha = 1 - t.exp(-density * 0.5)
        through = t.cumprod(t.cat([t.ones(5, 1), 1 - alpha + 1e-10], -1), -1)[:, :-1]
        return (((alpha * through)[..., None] * rgb).sum(1) - colour).pow(2).mean()

    return trained(t, model, t.optim.Adam(model.parameters(), lr=1e-2), loss)


def attention_on_a_graph(t: Any) -> list[Any]:
    """Message passing with attention over neighbours, by masked softmax."""
    adjacent = (waves(t, 6, 6) > 0.2) | t.eye(6).bool()
    w, a = (waves(t, 4, 5) * 0.5).requires_grad_(), waves(t, 10, 1, k=2.0).requires_grad_()
    out = fill(t, t.nn.Linear(5, 3))
    x, y, known = waves(t, 6, 4, k=3.0), t.arange(6) % 3, t.tensor([True, True, False, True, False, False])

    def loss() -> Any:
        h = x @ w
        pairs = t.cat([h.unsqueeze(1).expand(-1, 6, -1), h.unsqueeze(0).expand(6, -1, -1)], dim=-1)
        scores = t.nn.functional.leaky_relu((pairs @ a).squeeze(-1), 0.2).masked_fill(~adjacent, -1e9)
        z = t.nn.functional.elu(scores.softmax(dim=1) @ h)
        return t.nn.functional.cross_entropy(out(z)[known], y[known])

    optimizer = t.optim.Adam([w, a, *out.parameters()], lr=0.02)
    return trained(t, out, optimizer, loss)


def flow(t: Any) -> list[Any]:
    """Affine couplings, whose log-determinants are added up."""
    class Coupling(t.nn.Module):  # type: ignore[misc]
        def __init__(self, flip: bool) -> None:
            super().__init__()
            self.flip, self.net = flip, t.nn.Sequential(t.nn.Linear(1, 6), t.nn.Tanh(), t.nn.Linear(6, 2))

        def forward(self, x: Any) -> Any:
            a, b = x.chunk(2, dim=1)
            a, b = (b, a) if self.flip else (a, b)
            s, m = self.net(a).chunk(2, dim=1)
            s = t.tanh(s)
            b = b * s.exp() + m
            return t.cat([b, a] if self.flip else [a, b], dim=1), s.sum(1)

    model = fill(t, t.nn.ModuleList([Coupling(k % 2 == 1) for k in range(4)]))
    x = waves(t, 9, 2)

    def loss() -> Any:
        z, total = x, t.zeros(9)
        for layer in model:
            z, log_det = layer(z)
            total = total + log_det
        return -(total - 0.5 * (z ** 2).sum(1) - math.log(2 * math.pi)).mean()

    return trained(t, model, t.optim.Adam(model.parameters(), lr=1e-2), loss)


def values_of_actions(t: Any) -> list[Any]:
    """Deep Q-learning on given transitions: a buffer, a target network, a Huber loss."""
    net = fill(t, t.nn.Sequential(t.nn.Linear(3, 8), t.nn.ReLU(), t.nn.Linear(8, 2)))
    target = copy.deepcopy(net)
    optimizer = t.optim.Adam(net.parameters(), lr=1e-2)
    memory: list[Any] = []
    state = waves(t, 3)
    for k in range(12):
        with t.no_grad():
            action = int(net(state.unsqueeze(0)).argmax()) if k % 3 else k % 2
        following = t.roll(state, 1) * 0.9 + 0.1 * action
        memory.append((state, action, float(following.sum()), following, k % 5 == 4))
        state = following
    found = []
    for k in range(4):
        batch = memory[k: k + 8]
        states, actions = t.stack([b[0] for b in batch]), t.tensor([b[1] for b in batch])
        rewards, after = t.tensor([b[2] for b in batch]), t.stack([b[3] for b in batch])
        done = t.tensor([b[4] for b in batch])
        q = net(states).gather(1, actions.unsqueeze(1)).squeeze(1)
        with t.no_grad():
            best = target(after).max(1).values * ~done
        loss = t.nn.functional.smooth_l1_loss(q, rewards + 0.9 * best)
        optimizer.zero_grad()
        loss.backward()
        t.nn.utils.clip_grad_value_(net.parameters(), 1.0)
        optimizer.step()
        for a, b in zip(target.parameters(), net.parameters(), strict=True):
            a.data.mul_(0.9).add_(b.data, alpha=0.1)
        found.append(loss.item())
    return [*found, [p.sum() for p in target.parameters()]]


def low_rank_changes(t: Any) -> list[Any]:
    """Small matrices beside the frozen weights of a trained model; only they are trained, then merged."""
    class Adapted(t.nn.Module):  # type: ignore[misc]
        def __init__(self, layer: Any) -> None:
            super().__init__()
            self.layer = layer.requires_grad_(False)
            self.a, self.b = t.nn.Parameter(waves(t, 2, layer.in_features)), t.nn.Parameter(t.zeros(layer.out_features, 2))

        def forward(self, x: Any) -> Any:
            return self.layer(x) + x @ self.a.T @ self.b.T

    model = fill(t, t.nn.Sequential(t.nn.Linear(4, 6), t.nn.ReLU(), t.nn.Linear(6, 3)))
    for name, layer in list(model.named_children()):
        if isinstance(layer, t.nn.Linear):
            setattr(model, name, Adapted(layer))
    x, y = waves(t, 5, 4, k=2.0), waves(t, 5, 3, k=3.0)
    trainable = [p for p in model.parameters() if p.requires_grad]
    found = trained(t, model, t.optim.SGD(trainable, lr=0.05), lambda: t.nn.functional.mse_loss(model(x), y))
    with t.no_grad():
        for layer in model.children():
            if isinstance(layer, Adapted):
                layer.layer.weight += layer.b @ layer.a
                layer.b.zero_()
    return [*found, model(x), [name for name, p in model.named_parameters() if p.requires_grad]]


def averages_and_schedules(t: Any) -> list[Any]:
    """Exponential averages of parameters, a schedule of rates, and a checkpoint from which training goes on."""
    def start() -> Any:
        model = fill(t, t.nn.Linear(3, 2))
        optimizer = t.optim.Adam(model.parameters(), lr=0.1)
        return model, optimizer, t.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=6)

    model, optimizer, schedule = start()
    average = {name: p.detach().clone() for name, p in model.named_parameters()}
    x, found = waves(t, 4, 3), []
    saved: dict[str, Any] = {}
    for k in range(6):
        loss = (model(x) - 1).abs().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        for name, p in model.named_parameters():
            average[name].mul_(0.8).add_(p.detach(), alpha=0.2)
        found += [loss.item(), optimizer.param_groups[0]["lr"]]
        if k == 2:
            saved = copy.deepcopy(dict(model=model.state_dict(), optimizer=optimizer.state_dict(), schedule=schedule.state_dict()))
    other, again, rates = start()
    other.load_state_dict(saved["model"])
    again.load_state_dict(saved["optimizer"])
    rates.load_state_dict(saved["schedule"])
    for _ in range(3):
        loss = (other(x) - 1).abs().mean()
        again.zero_grad()
        loss.backward()
        again.step()
        rates.step()
    return [*found, average, t.allclose(other.weight, model.weight)]


def gradients_of_examples(t: Any) -> list[Any]:
    """The gradient of each example by ``vmap`` of ``grad``, against one backward for each."""
    model = fill(t, t.nn.Sequential(t.nn.Linear(3, 4), t.nn.Tanh(), t.nn.Linear(4, 2)))
    params = {name: p.detach() for name, p in model.named_parameters()}
    x, y = waves(t, 5, 3), t.arange(5) % 2

    def loss(params: Any, x: Any, y: Any) -> Any:
        out = t.func.functional_call(model, params, (x.unsqueeze(0),))
        return t.nn.functional.cross_entropy(out, y.unsqueeze(0))

    found = t.func.vmap(t.func.grad(loss), in_dims=(None, 0, 0))(params, x, y)
    same = []
    for i in range(5):
        model.zero_grad()
        t.nn.functional.cross_entropy(model(x[i: i + 1]), y[i: i + 1]).backward()
        same.append(all(t.allclose(found[name][i], p.grad, atol=1e-6) for name, p in model.named_parameters()))
    return [found["0.weight"], same]


def distillation(t: Any) -> list[Any]:
    """A small network learns the softened outputs of a larger one."""
    teacher = fill(t, t.nn.Sequential(t.nn.Linear(4, 12), t.nn.ReLU(), t.nn.Linear(12, 3))).eval()
    student = fill(t, t.nn.Linear(4, 3))
    x, y, heat = waves(t, 6, 4), t.arange(6) % 3, 2.0

    def loss() -> Any:
        with t.no_grad():
            soft = (teacher(x) / heat).softmax(1)
        out = student(x)
        return (0.7 * t.nn.functional.kl_div((out / heat).log_softmax(1), soft, reduction="batchmean") * heat ** 2
                + 0.3 * t.nn.functional.cross_entropy(out, y, label_smoothing=0.1))

    return trained(t, student, t.optim.SGD(student.parameters(), lr=0.1, nesterov=True, momentum=0.9), loss)
