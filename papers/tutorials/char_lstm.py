"""A network that writes like this project's README: it reads the page letter by letter, and learns which letter comes next.

    python papers/tutorials/char_lstm.py

An embedding, an LSTM and a linear layer, trained on windows of the text.  The loss is in nats for each letter: the logarithm of how
many letters it wavers between.  Knowing nothing, that is log(number of letters), about 4.5; knowing how often each occurs, about 3.4.
"""

from __future__ import annotations

import argparse
import math
import time
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from dualrev import eager as torch
from dualrev.eager import nn

README = Path(__file__).parents[2] / "README.md"


class Writer(nn.Module):
    """The scores of the next letter, for each letter of a text."""

    def __init__(self, letters: int, hidden: int):
        super().__init__()
        self.embedding = nn.Embedding(letters, 32)
        self.lstm = nn.LSTM(32, hidden, batch_first=True)
        self.scores = nn.Linear(hidden, letters)

    def forward(self, text: Any, state: Any = None) -> Any:
        out, state = self.lstm(self.embedding(text), state)
        return self.scores(out), state


def train(text: str, steps: int, hidden: int = 128, batch: int = 32, window: int = 64, lr: float = 5e-3,
          told: Any = lambda loss: None) -> tuple[Writer, list[str], list[float]]:
    """The network, its letters, and the loss of each step."""
    letters = sorted(set(text))
    number = {letter: k for k, letter in enumerate(letters)}
    whole = torch.tensor([number[letter] for letter in text])
    model = Writer(len(letters), hidden)
    optimizer = torch.optim.Adam(model.parameters(), lr=lr)

    @torch.jit
    def step() -> Any:
        # Random windows are drawn inside the program too.
        starts = torch.randint(len(text) - window, (batch, 1))
        places = starts + torch.arange(window + 1)
        rows = whole[places]
        optimizer.zero_grad()
        scores, _ = model(rows[:, :-1])
        loss = nn.functional.cross_entropy(scores.flatten(0, 1), rows[:, 1:].flatten())
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        return loss

    losses = []
    for _ in range(steps):
        losses.append(step().item())
        told(losses[-1])
    return model, letters, losses


@torch.no_grad()
def write(model: Writer, letters: list[str], start: str, count: int, temperature: float = 0.5) -> str:
    """Go on with a text, letter by letter."""
    text = start
    scores, state = model(torch.tensor([[letters.index(letter) for letter in start]]))
    for _ in range(count):
        chances = (scores[0, -1] / temperature).softmax(0)
        nearest = int((torch.rand(1) > chances.cumsum(0)).sum())
        text += letters[min(nearest, len(letters) - 1)]
        scores, state = model(torch.tensor([[letters.index(text[-1])]]), state)
    return text


def main(arguments: list[str] | None = None) -> float:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--text", type=Path, default=README, help="what it reads (default: the README)")
    parser.add_argument("--steps", type=int, default=500, help="how many (default: %(default)s)")
    options = parser.parse_args(arguments)
    console, start = Console(), time.perf_counter()
    torch.manual_seed(0)
    text = options.text.read_text()
    columns = (TextColumn("reading"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[loss]:.2f} nats"),
               TimeRemainingColumn())
    with Progress(*columns, console=console) as progress:
        task = progress.add_task("", total=options.steps, loss=math.log(len(set(text))))
        model, letters, losses = train(text, options.steps, told=lambda loss: progress.update(task, advance=1, loss=loss))
    last = sum(losses[-20:]) / len(losses[-20:])
    console.print(f"{last:.2f} nats for each letter, after {time.perf_counter() - start:.0f} s; {math.exp(last):.1f} letters that it "
                  "wavers between.  It writes:\n")
    console.print(write(model, letters, "The ", 300), markup=False, highlight=False)
    return last


if __name__ == "__main__":
    main()
