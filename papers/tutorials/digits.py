"""Handwritten digits: a small convolutional network learns to read 1,797 of them, written as a PyTorch tutorial would write it.

    pip install "dualrev[papers]"
    python papers/tutorials/digits.py                         # a minute on two cores
    python papers/tutorials/digits.py --epochs 20 --resume    # on from the checkpoint, as if it had not stopped

Beside the checkpoint it leaves a picture of the loss.  Data: [AlpaydinKaynak1998, UCI repository], as scikit-learn ships it.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from dualrev import eager as torch
from dualrev.eager import nn
from dualrev.eager.utils.data import DataLoader, TensorDataset, random_split


class Net(nn.Module):
    """Two convolutions, each with a pooling, and a classifier."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(1, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU(), nn.MaxPool2d(2),
            nn.Conv2d(16, 32, 3, padding=1), nn.BatchNorm2d(32), nn.ReLU(), nn.MaxPool2d(2))
        self.classifier = nn.Sequential(nn.Flatten(), nn.Dropout(0.3), nn.Linear(32 * 2 * 2, 10))

    def forward(self, x: Any) -> Any:
        return self.classifier(self.features(x))


def digits() -> tuple[Any, Any]:
    """Four fifths to learn from and one to be examined with."""
    from sklearn.datasets import load_digits

    data = load_digits()
    images = torch.tensor(data.images, dtype=torch.float32).unsqueeze(1) / 16
    order = torch.Generator().manual_seed(0)
    learn, examine = random_split(TensorDataset(images, torch.tensor(data.target)), [0.8, 0.2], order)
    return learn, examine


class Trainer:
    """A model, its optimizer, and how far they have come: what a checkpoint holds."""

    def __init__(self, folder: Path, lr: float = 3e-3, batch_size: int = 64):
        torch.manual_seed(0)
        learn, examine = digits()
        self.loader = DataLoader(learn, batch_size, shuffle=True, drop_last=True)
        self.images, self.labels = examine[list(range(len(examine)))]
        self.folder, self.model = folder, Net()
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=lr)
        self.schedule = torch.optim.lr_scheduler.ExponentialLR(self.optimizer, 0.9)
        self.epoch, self.losses, self.accuracies = 0, [], []

    losses: list[float]
    accuracies: list[float]

    def step(self, images: Any, labels: Any) -> Any:
        self.optimizer.zero_grad()
        loss = nn.functional.cross_entropy(self.model(images), labels)
        loss.backward()
        self.optimizer.step()
        return loss

    def accuracy(self) -> float:
        self.model.eval()
        with torch.no_grad():
            right = self.model(self.images).argmax(1) == self.labels
        self.model.train()
        return right.float().mean().item()

    def run_epoch(self, told: Any = lambda loss: None, steps: int | None = None) -> None:
        for k, (images, labels) in enumerate(self.loader):
            if k == steps:
                break
            self.losses.append(self.step(images, labels).item())
            told(self.losses[-1])
        self.schedule.step()
        self.epoch += 1
        self.accuracies.append(self.accuracy())

    def save(self) -> Path:
        path = self.folder / "digits.safetensors"
        torch.save({"model": self.model.state_dict(), "optimizer": self.optimizer.state_dict(), "schedule": self.schedule.state_dict(),
                    "random": torch.get_rng_state(), "epoch": self.epoch, "losses": self.losses, "accuracies": self.accuracies}, path)
        return path

    def resume(self) -> None:
        state = torch.load(self.folder / "digits.safetensors")
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.schedule.load_state_dict(state["schedule"])
        torch.set_rng_state(state["random"])
        self.epoch, self.losses, self.accuracies = state["epoch"], state["losses"], state["accuracies"]

    def picture(self) -> Path:
        """The loss of each step and the accuracy after each epoch."""
        from matplotlib.figure import Figure

        figure = Figure(figsize=(7, 3.5), layout="constrained")
        left = figure.subplots()
        left.semilogy(self.losses, color="#4c72b0", linewidth=0.7)
        left.set_xlabel("step")
        left.set_ylabel("cross entropy", color="#4c72b0")
        right = left.twinx()
        steps = len(self.losses) / max(len(self.accuracies), 1)
        right.plot([steps * (k + 1) for k in range(len(self.accuracies))], [100 * a for a in self.accuracies], "o-", color="#c44e52",
                   markersize=4)
        right.set_ylabel("test accuracy, %", color="#c44e52")
        path = self.folder / "digits.png"
        figure.savefig(path, dpi=150)
        return path


def main(arguments: list[str] | None = None) -> float:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--epochs", type=int, default=12, help="how many in all (default: %(default)s)")
    parser.add_argument("--folder", type=Path, default=Path(), help="where the checkpoint and the picture go (default: here)")
    parser.add_argument("--resume", action="store_true", help="go on from the checkpoint in the folder")
    options = parser.parse_args(arguments)
    options.folder.mkdir(parents=True, exist_ok=True)
    console, start = Console(), time.perf_counter()
    trainer = Trainer(options.folder)
    if options.resume:
        trainer.resume()
        console.print(f"going on from epoch {trainer.epoch}")
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("loss {task.fields[loss]:.3f}"),
               TextColumn("accuracy {task.fields[accuracy]:.2%}"), TimeRemainingColumn())
    with Progress(*columns, console=console) as progress:
        total = options.epochs * len(trainer.loader)
        task = progress.add_task("training", total=total, completed=trainer.epoch * len(trainer.loader), loss=0.0, accuracy=0.0)
        while trainer.epoch < options.epochs:
            trainer.run_epoch(lambda loss: progress.update(task, advance=1, loss=loss))
            progress.update(task, accuracy=trainer.accuracies[-1])
            trainer.save()
    console.print(f"{trainer.accuracies[-1]:.2%} of {len(trainer.labels)} digits that it had not seen are read right, "
                  f"after {time.perf_counter() - start:.0f} s")
    console.print(f"checkpoint {trainer.folder / 'digits.safetensors'}, picture {trainer.picture()}")
    return trainer.accuracies[-1]


if __name__ == "__main__":
    main()
