"""Whole programs: networks for pictures and rows of numbers, trained for a few steps.  Each returns what it found, step by step."""

from __future__ import annotations

from typing import Any

from programs.starting import fill, trained, waves


def classifier(t: Any) -> list[Any]:
    """A classifier with a Dataset of its own, a collate function, batches, and an evaluation."""
    class Rows(t.utils.data.Dataset):  # type: ignore[misc]
        def __init__(self) -> None:
            self.x, self.y = waves(t, 40, 5), (t.arange(40) * 7) % 3

        def __len__(self) -> int:
            return len(self.x)

        def __getitem__(self, i: int) -> Any:
            return {"x": self.x[i], "y": self.y[i]}

    def collate(rows: list[Any]) -> Any:
        return t.stack([r["x"] for r in rows]), t.stack([r["y"] for r in rows])

    model = fill(t, t.nn.Sequential(t.nn.Linear(5, 8), t.nn.ReLU(), t.nn.Linear(8, 3)))
    optimizer = t.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    loss_fn = t.nn.CrossEntropyLoss()
    found: list[Any] = []
    for _ in range(2):
        model.train()
        for x, y in t.utils.data.DataLoader(Rows(), batch_size=16, collate_fn=collate):
            optimizer.zero_grad()
            loss = loss_fn(model(x), y)
            loss.backward()
            optimizer.step()
            found.append(loss.item())
        model.eval()
        right = 0
        with t.no_grad():
            for batch in t.utils.data.DataLoader(Rows(), batch_size=7):
                right += (model(batch["x"]).argmax(1) == batch["y"]).sum().item()
        found.append(right)
    return found


def lenet(t: Any) -> list[Any]:
    """Convolutions, pooling, and rows of features."""
    nn = t.nn
    model = fill(t, nn.Sequential(nn.Conv2d(1, 3, 5, padding=2), nn.Sigmoid(), nn.AvgPool2d(2, stride=2), nn.Conv2d(3, 4, 3),
                                  nn.Tanh(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(4 * 3 * 3, 10)))
    x, y = waves(t, 4, 1, 16, 16), t.tensor([1, 3, 0, 9])
    return trained(t, model, t.optim.Adam(model.parameters(), lr=0.01), lambda: t.nn.functional.cross_entropy(model(x), y))


def frozen_normalization(t: Any) -> list[Any]:
    """A residual block whose batch normalization stays as it was, by a ``train`` of its own."""
    class Frozen(t.nn.BatchNorm2d):  # type: ignore[misc]
        def train(self, mode: bool = True) -> Any:
            return super().train(False)

    class Block(t.nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = t.nn.Conv2d(2, 2, 3, padding=1), t.nn.Conv2d(2, 2, 3, padding=1, bias=False)
            self.norm, self.live = Frozen(2), t.nn.BatchNorm2d(2)

        def forward(self, x: Any) -> Any:
            y = t.relu(self.norm(self.first(x)))
            return t.relu(self.live(self.second(y)) + x)

    model = fill(t, Block()).train()
    for p in model.norm.parameters():
        p.requires_grad_(False)
    x = waves(t, 2, 2, 6, 6)
    optimizer = t.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.05, weight_decay=0.01)
    found = trained(t, model, optimizer, lambda: (model(x) ** 2).mean())
    return [*found, model.norm.running_mean, model.live.running_mean, model.live.running_var]


def variational_autoencoder(t: Any) -> list[Any]:
    """The reparametrised sample of an encoder, with noise that is given."""
    nn, functional = t.nn, t.nn.functional

    class Coder(t.nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.hidden, self.mean, self.scale = nn.Linear(6, 5), nn.Linear(5, 2), nn.Linear(5, 2)
            self.decode = nn.Sequential(nn.Linear(2, 5), nn.ReLU(), nn.Linear(5, 6))

        def forward(self, x: Any, noise: Any) -> Any:
            h = t.relu(self.hidden(x))
            mean, log_var = self.mean(h), self.scale(h)
            z = mean + noise * t.exp(0.5 * log_var)
            return t.sigmoid(self.decode(z)), mean, log_var

    model = fill(t, Coder())
    x, noise = waves(t, 7, 6).abs(), waves(t, 7, 2, k=3.0)

    def loss() -> Any:
        out, mean, log_var = model(x, noise)
        return functional.binary_cross_entropy(out, x, reduction="sum") - 0.5 * t.sum(1 + log_var - mean.pow(2) - log_var.exp())

    return trained(t, model, t.optim.Adam(model.parameters(), lr=1e-2), loss)


def adversaries(t: Any) -> list[Any]:
    """A generator and a critic with a gradient penalty, trained in turn."""
    nn = t.nn
    maker = fill(t, nn.Sequential(nn.Linear(2, 8), nn.LeakyReLU(0.2), nn.Linear(8, 3)))
    critic = fill(t, nn.Sequential(nn.Linear(3, 8), nn.LeakyReLU(0.2), nn.Linear(8, 1)))
    makes, judges = t.optim.Adam(maker.parameters(), lr=1e-2, betas=(0.5, 0.9)), t.optim.SGD(critic.parameters(), lr=1e-2)
    real, noise, mix = waves(t, 6, 3), waves(t, 6, 2, k=2.0), waves(t, 6, 1, k=0.3).abs()
    found = []
    for _ in range(3):
        judges.zero_grad()
        fake = maker(noise).detach()
        between = (mix * real + (1 - mix) * fake).requires_grad_()
        slope, = t.autograd.grad(critic(between).sum(), between, create_graph=True)
        loss = critic(fake).mean() - critic(real).mean() + 10 * ((slope.norm(2, dim=1) - 1) ** 2).mean()
        loss.backward()
        judges.step()
        makes.zero_grad()
        made = -critic(maker(noise)).mean()
        made.backward()
        makes.step()
        found += [loss.item(), made.item()]
    return found


def u_shaped(t: Any) -> list[Any]:
    """A network that goes down and up again, with joins across, and a dice loss."""
    nn = t.nn

    class Net(t.nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.down, self.deep = nn.Conv2d(1, 2, 3, padding=1), nn.Conv2d(2, 3, 3, padding=1)
            self.up, self.out = nn.ConvTranspose2d(3, 2, 2, stride=2), nn.Conv2d(4, 1, 1)

        def forward(self, x: Any) -> Any:
            a = t.relu(self.down(x))
            b = t.relu(self.deep(nn.functional.max_pool2d(a, 2)))
            return t.sigmoid(self.out(t.cat([self.up(b), a], dim=1)))

    model = fill(t, Net())
    x, y = waves(t, 2, 1, 8, 8), (waves(t, 2, 1, 8, 8, k=2.0) > 0).float()

    def loss() -> Any:
        p = model(x)
        return 1 - (2 * (p * y).sum() + 1) / (p.sum() + y.sum() + 1)

    return trained(t, model, t.optim.AdamW(model.parameters(), lr=0.01), loss)


def picture_in_a_style(t: Any) -> list[Any]:
    """The entries of a picture are optimised, so that features of a fixed network have given correlations."""
    features = fill(t, t.nn.Sequential(t.nn.Conv2d(1, 3, 3), t.nn.ReLU(inplace=True), t.nn.Conv2d(3, 3, 3))).requires_grad_(False)

    def gram(x: Any) -> Any:
        f = features(x).flatten(2)
        return f @ f.transpose(1, 2) / f.shape[-1]

    wanted = gram(waves(t, 1, 1, 9, 9, k=2.0))
    picture = waves(t, 1, 1, 9, 9).clone().requires_grad_()
    optimizer = t.optim.Adam([picture], lr=0.05)
    found = []
    for _ in range(4):
        optimizer.zero_grad()
        loss = ((gram(picture) - wanted) ** 2).sum() + 1e-2 * (picture[..., 1:] - picture[..., :-1]).abs().sum()
        loss.backward()
        optimizer.step()
        with t.no_grad():
            picture.clamp_(-1, 1)
        found.append(loss.item())
    return [*found, picture]


def where_it_looks(t: Any) -> list[Any]:
    """Gradients of a class with respect to feature maps, by hooks (Grad-CAM)."""
    nn = t.nn
    model = fill(t, nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(16, 3)))
    kept: dict[str, Any] = {}
    model[0].register_forward_hook(lambda module, args, out: kept.update(maps=out))
    model[0].register_full_backward_hook(lambda module, inputs, outputs: kept.update(grads=outputs[0]))
    x = waves(t, 1, 1, 7, 7).requires_grad_()
    scores = model(x)
    scores[0, scores.argmax()].backward()
    weights = kept["grads"].mean(dim=(2, 3), keepdim=True)
    heat = t.relu((weights * kept["maps"]).sum(1))
    return [heat / heat.max(), x.grad]
