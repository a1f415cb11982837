"""Programs in the manner of tutorials: bags of words, tags by a conditional random field, optimizers of one's own, a beam search."""

from __future__ import annotations

from typing import Any

from programs.starting import fill, waves


def news_in_bags(t: Any) -> list[Any]:
    """A classifier of bags of words, with offsets that a collate function makes, and a rate that falls."""
    nn = t.nn

    class News(t.utils.data.Dataset):  # type: ignore[misc, name-defined]
        def __len__(self) -> int:
            return 17

        def __getitem__(self, i: int) -> tuple[int, list[int]]:
            return i % 3, [(7 * i + 3 * j) % 20 for j in range(1 + i % 5)]

    def collate(batch: list[tuple[int, list[int]]]) -> tuple[Any, Any, Any]:
        labels = t.tensor([label for label, _ in batch])
        texts = [t.tensor(words, dtype=t.int64) for _, words in batch]
        offsets = t.tensor([0, *[x.size(0) for x in texts[:-1]]]).cumsum(dim=0)
        return labels, t.cat(texts), offsets

    bag, head = nn.EmbeddingBag(20, 8, mode="mean"), nn.Linear(8, 3)
    model = fill(t, nn.ModuleList([bag, head]))
    news = News()
    batches = t.utils.data.BatchSampler(t.utils.data.SequentialSampler(news), 4, False)
    loader = t.utils.data.DataLoader(news, batch_sampler=batches, collate_fn=collate)
    optimizer = t.optim.SGD(model.parameters(), lr=1.0)
    schedule = t.optim.lr_scheduler.StepLR(optimizer, 1, gamma=0.1)
    found: list[Any] = []
    for _ in range(2):
        right = 0
        for labels, texts, offsets in loader:
            optimizer.zero_grad()
            loss = nn.functional.cross_entropy(head(bag(texts, offsets)), labels)
            loss.backward()
            norm = nn.utils.clip_grad_norm_(model.parameters(), 0.1)
            optimizer.step()
            right += int((head(bag(texts, offsets)).argmax(1) == labels).sum())
            found += [loss.item(), norm.item()]
        schedule.step()
        found += [right / len(news), schedule.get_last_lr()]
    return found


def tags_by_a_random_field(t: Any) -> list[Any]:
    """A recurrent tagger with transitions between tags: the likelihood by a recursion, the best tags by another."""
    nn, n_tags = t.nn, 4

    class Tagger(nn.Module):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.words = nn.Embedding(15, 6, padding_idx=0)
            self.lstm = nn.LSTM(6, 5, batch_first=True, bidirectional=True)
            self.out = nn.Linear(10, n_tags)
            self.between = nn.Parameter(t.zeros(n_tags, n_tags))

        def forward(self, x: Any, lengths: Any) -> Any:
            packed = nn.utils.rnn.pack_padded_sequence(self.words(x), lengths, batch_first=True, enforce_sorted=False)
            states, _ = nn.utils.rnn.pad_packed_sequence(self.lstm(packed)[0], batch_first=True)
            return self.out(states)

        def loss(self, scores: Any, tags: Any, mask: Any) -> Any:
            total = scores[:, 0]
            own = scores[:, 0].gather(1, tags[:, :1]).squeeze(1)
            for i in range(1, tags.size(1)):
                after = t.logsumexp(total.unsqueeze(2) + self.between + scores[:, i].unsqueeze(1), dim=1)
                total = t.where(mask[:, i].unsqueeze(1), after, total)
                step = self.between[tags[:, i - 1], tags[:, i]] + scores[:, i].gather(1, tags[:, i, None])[:, 0]
                own = own + step * mask[:, i]
            return (total.logsumexp(1) - own).mean()

        @t.no_grad()
        def best(self, scores: Any) -> list[int]:
            total, back = scores[0], []
            for score in scores[1:]:
                value, before = (total[:, None] + self.between).max(0)
                total = value + score
                back.append(before)
            path = [int(total.argmax())]
            for before in reversed(back):
                path.append(before[path[-1]].item())
            return path[::-1]

    model = fill(t, Tagger())
    texts = [t.tensor([1, 2, 3, 4, 5]), t.tensor([6, 7]), t.tensor([8, 9, 10])]
    tags = [t.tensor([0, 1, 2, 3, 0]), t.tensor([1, 1]), t.tensor([2, 3, 1])]
    pad = nn.utils.rnn.pad_sequence
    x, y, lengths = pad(texts, batch_first=True), pad(tags, batch_first=True), t.tensor([len(text) for text in texts])
    mask = t.arange(x.size(1))[None, :] < lengths[:, None]
    optimizer = t.optim.RMSprop(model.parameters(), lr=1e-3, momentum=0.5)
    found: list[Any] = []
    for _ in range(3):
        optimizer.zero_grad()
        loss = model.loss(model(x, lengths), y, mask)
        loss.backward()
        nn.utils.clip_grad_value_(model.parameters(), 0.5)
        found += [loss.item(), model.words.weight.grad[0].abs().sum()]
        optimizer.step()
    scores = model(x, lengths)
    return [*found, scores, *[model.best(scores[k, :n]) for k, n in enumerate(lengths.tolist())]]


def optimizers_of_ones_own(t: Any) -> list[Any]:
    """Two subclasses of ``Optimizer``: one that looks for flat minima by a second step, one that goes by signs."""
    nn = t.nn

    class Flat(t.optim.Optimizer):  # type: ignore[misc, name-defined]
        def __init__(self, params: Any, rho: float = 0.05, **settings: Any):
            super().__init__(params, dict(rho=rho, **settings))
            self.base = t.optim.SGD(self.param_groups, **settings)
            self.param_groups = self.base.param_groups

        def step(self, closure: Any) -> Any:
            loss = t.enable_grad()(closure)()
            params = [p for group in self.param_groups for p in group["params"]]
            with t.no_grad():
                norm = t.stack([p.grad.norm() for p in params]).norm() + 1e-12
                for p in params:
                    self.state[p]["before"] = p.data.clone()
                    p.add_(p.grad * (self.param_groups[0]["rho"] / norm))
            self.zero_grad()
            closure()
            with t.no_grad():
                for p in params:
                    p.data = self.state[p]["before"]
            self.base.step()
            return loss

    class Signs(t.optim.Optimizer):  # type: ignore[misc, name-defined]
        def __init__(self, params: Any, lr: float = 0.01):
            super().__init__(params, dict(lr=lr))

        @t.no_grad()
        def step(self, closure: Any) -> Any:
            loss = t.enable_grad()(closure)()
            for group in self.param_groups:
                for p in group["params"]:
                    state = self.state[p]
                    if not state:
                        state["mean"] = t.zeros_like(p)
                    p.add_(state["mean"].mul(0.9).add_(p.grad, alpha=0.1).sign_(), alpha=-group["lr"])
                    state["mean"].lerp_(p.grad, 0.01)
            return loss

    x, y = waves(t, 10, 4), waves(t, 10, 1, k=2.0)
    found: list[Any] = []
    for make in (lambda p: Flat(p, lr=0.1, momentum=0.9), Signs):
        model = fill(t, nn.Sequential(nn.Linear(4, 6), nn.Softplus(), nn.Linear(6, 1)))
        optimizer = make(model.parameters())

        def closure(model: Any = model, optimizer: Any = optimizer) -> Any:
            optimizer.zero_grad()
            loss = nn.functional.mse_loss(model(x), y)
            loss.backward()
            return loss

        found += [optimizer.step(closure).item() for _ in range(3)]
        found += [p.detach().clone() for p in model.parameters()]
        before = [p.detach() for p in model.parameters()]
        nn.utils.vector_to_parameters(nn.utils.parameters_to_vector(model.parameters()) * 2, model.parameters())
        found += [*before, nn.functional.mse_loss(model(x), y), sorted(optimizer.state_dict()["state"][0])]
    return found


def translation_by_beams(t: Any) -> list[Any]:
    """Attention over an encoder's states, taught by the right words and by its own, and decoded by a beam search."""
    nn, F = t.nn, t.nn.functional
    words, encoder = nn.Embedding(10, 6), nn.GRU(6, 4, bidirectional=True)
    match, step, out = nn.Linear(8 + 8, 8), nn.GRUCell(6 + 8, 8), nn.Linear(8 + 8, 9)
    model = fill(t, nn.ModuleList([words, encoder, match, step, out]))
    x = (t.arange(15) * 3 % 9 + 1).view(5, 3)
    x[3:, 1] = 0
    y = (t.arange(12) * 2 % 8 + 1).view(4, 3)

    def encoded(x: Any) -> tuple[Any, Any, Any]:
        states, last = encoder(words(x))
        return states, t.tanh(t.cat((last[-2], last[-1]), dim=1)), (x != 0).t()

    def decoded(word: Any, h: Any, states: Any, mask: Any) -> tuple[Any, Any]:
        here = t.cat((h.unsqueeze(1).repeat(1, states.shape[0], 1), states.permute(1, 0, 2)), dim=2)
        weights = F.softmax(match(here).tanh().sum(2).masked_fill(mask == 0, -1e10), dim=1)
        seen = t.bmm(weights.unsqueeze(1), states.permute(1, 0, 2)).squeeze(1)
        h = step(t.cat((words(word), seen), 1), h)
        return out(t.cat((h, seen), 1)), h

    optimizer = t.optim.Adamax(model.parameters(), lr=0.01)
    found: list[Any] = []
    for k in range(3):
        optimizer.zero_grad()
        states, h, mask = encoded(x)
        outs, word = t.zeros(4, 3, 9), y[0]
        for i in range(1, 4):
            outs[i], h = decoded(word, h, states, mask)
            word = y[i] if (i + k) % 2 else outs[i].argmax(1)
        loss = F.cross_entropy(outs[1:].view(-1, 9), y[1:].reshape(-1), ignore_index=0)
        loss.backward()
        optimizer.step()
        found.append(loss.item())
    with t.no_grad():
        states, h, mask = encoded(x[:, :1])
        beams = [([1], 0.0, h)]
        for _ in range(3):
            longer = []
            for sequence, score, before in beams:
                scores, after = decoded(t.tensor([sequence[-1]]), before, states, mask)
                values, indices = F.log_softmax(scores, -1).topk(3)
                longer += [([*sequence, int(i)], score + float(v), after) for v, i in zip(values[0], indices[0], strict=True)]
            beams = sorted(longer, key=lambda beam: -beam[1])[:3]
    return [*found, *[sequence for sequence, _, _ in beams], *[score for _, score, _ in beams]]
