"""The scripts in ``papers/tutorials``, with small budgets."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dualrev import eager as torch

pytestmark = pytest.mark.thorough

FOLDER = Path(__file__).parents[2] / "papers" / "tutorials"


def script(name: str) -> Any:
    spec = importlib.util.spec_from_file_location(f"tutorial_{name}", FOLDER / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def test_digits_are_learned_and_a_checkpoint_goes_on_identically(tmp_path: Path) -> None:
    pytest.importorskip("sklearn")
    digits = script("digits")
    first = digits.Trainer(tmp_path)
    assert len(first.loader.dataset) == 1438 and len(first.labels) == 359
    first.run_epoch()
    saved = first.save().read_bytes()
    first.run_epoch(steps=4)
    second = digits.Trainer(tmp_path)
    second.resume()
    assert second.epoch == 1 and second.save().read_bytes() == saved
    second.run_epoch(steps=4)
    assert second.losses == first.losses and second.accuracies == first.accuracies
    for name, x in first.model.state_dict().items():
        np.testing.assert_array_equal(x.numpy(), second.model.state_dict()[name].numpy(), strict=True)
    assert first.accuracies[-1] > 0.7 and np.mean(first.losses[-4:]) < 0.8 < first.losses[0]


def test_digits_from_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("sklearn")
    pytest.importorskip("matplotlib")
    digits = script("digits")
    digits.Trainer(tmp_path).save()
    digits.main(["--epochs", "1", "--resume", "--folder", str(tmp_path)])
    out = capsys.readouterr().out
    assert "going on from epoch 0" in out and "of 359 digits that it had not seen are read right" in out.replace("\n", " ")
    assert (tmp_path / "digits.png").read_bytes()[:4] == b"\x89PNG"


def test_letters_are_learned() -> None:
    letters = script("char_lstm")
    torch.manual_seed(0)
    text = "the derivative of a sum is the sum of the derivatives; " * 3
    model, known, losses = letters.train(text, 40, hidden=24, batch=8, window=12, lr=0.02)
    assert losses[0] == pytest.approx(np.log(len(known)), rel=0.1) and np.mean(losses[-5:]) < 1.5
    written = letters.write(model, known, "the ", 3)
    assert written.startswith("the ") and len(written) == 7 and set(written) <= set(known)
    assert letters.README.name == "README.md" and letters.README.exists()


def test_the_step_of_resnet(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    step = script("resnet18")
    # The step with the real model is compared in test_resnet.py; here the script, with a small one.
    small = lambda weights: torch.nn.Sequential(torch.nn.Conv2d(3, 2, 3, 8), torch.nn.Flatten(), torch.nn.Linear(128, 1000))  # noqa: E731
    monkeypatch.setattr(step, "resnet18", small)
    losses = step.main(["--steps", "2"])
    assert losses[1] < losses[0] and "4 of 4" in capsys.readouterr().out
