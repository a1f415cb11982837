"""Losses, distances and shrinkage."""

from __future__ import annotations

from typing import Any

import pytest
from against_torch import in_both, message
from test_images import with_grad
from test_packed_sequences import wave

from dualrev import eager


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_losses(reduction: str) -> None:
    def program(t: Any) -> list[Any]:
        F, r = t.nn.functional, reduction
        x, y = wave(t, 4, 5), (wave(t, 4, 5) * 2).cos()
        sign, classes, weight = t.tensor([1.0, -1.0, 1.0, -1.0]), t.tensor([0, 3, 2, 4]), t.arange(5.0)
        several = t.tensor([[3, 0, -1, 1, 1], [0, 1, 2, 3, 4], [-1, 0, 0, 0, 0], [2, -1, 3, -1, -1]])
        both: list[Any] = [
            lambda x, y: F.margin_ranking_loss(x, y, y.detach().sign(), 0.3, reduction=r),
            lambda x, y: F.cosine_embedding_loss(x, y, sign, 0.1, reduction=r),
            lambda x, y: F.triplet_margin_loss(x, y, wave(t, 4, 5).flip(0), 0.7, swap=True, reduction=r),
            lambda x, y: F.triplet_margin_with_distance_loss(x, y, wave(t, 4, 5).flip(0), reduction=r),
            lambda x, y: F.poisson_nll_loss(x, y.abs() * 4, full=True, reduction=r),
            lambda x, y: F.gaussian_nll_loss(x, y, y.abs() * 0.01, eps=0.003, full=True, reduction=r),
            lambda x, y: F.binary_cross_entropy(x.sigmoid(), y.sigmoid(), weight, reduction=r),
            lambda x, y: F.mse_loss(x, y, weight=y.abs(), reduction=r),
            lambda x, y: F.huber_loss(x, y, delta=0.3, weight=y.abs(), reduction=r)]
        one: list[Any] = [
            lambda x: F.hinge_embedding_loss(x[:, 0], sign, 0.4, reduction=r),
            lambda x: F.soft_margin_loss(x, y.sign(), reduction=r),
            lambda x: F.multilabel_soft_margin_loss(x, (y > 0).float(), weight, reduction=r),
            lambda x: F.multi_margin_loss(x, classes, 2, 0.5, weight, reduction=r),
            lambda x: F.multilabel_margin_loss(x, several, reduction=r)]
        return [[with_grad(t, f, x, y) for f in both], [with_grad(t, f, x) for f in one]]

    in_both(program, 1e-4)


def test_older_arguments_and_modules() -> None:
    def program(t: Any) -> list[Any]:
        nn, x, y, classes = t.nn, wave(t, 3, 4), (wave(t, 3, 4) * 2).cos(), t.tensor([1, 0, 3])
        loss = nn.CrossEntropyLoss(t.ones(4), ignore_index=2, label_smoothing=0.1)
        return [nn.CrossEntropyLoss(None, None, 3, None, "sum", 0.1)(x, classes), nn.NLLLoss(ignore_index=1)(x, classes),
                nn.BCELoss(t.arange(4.0))(x.sigmoid(), y.sigmoid()), nn.HuberLoss("sum", 0.5)(x, y),
                nn.MarginRankingLoss(0.3)(x, y, y.sign()),
                nn.TripletMarginWithDistanceLoss(distance_function=nn.PairwiseDistance(1.0))(x, y, x),
                nn.GaussianNLLLoss()(x, y, y.abs()),
                nn.MultiMarginLoss(2)(x, classes), nn.KLDivLoss(reduction="batchmean", log_target=True)(x, y), loss(x, classes),
                loss.ignore_index, loss.reduction, list(loss.state_dict()), repr(loss),
                message(lambda: nn.TripletMarginLoss(margin=-1), ValueError),
                message(lambda: nn.MSELoss(reduction="x")(x, y), ValueError)]

    in_both(program)
    with pytest.warns(UserWarning, match="size_average and reduce args will be deprecated"):
        total = eager.nn.functional.mse_loss(eager.ones(2), eager.zeros(2), size_average=False)
    assert total.item() == 2


def test_weights_of_absolute_differences() -> None:
    # PyTorch forgets them while a default device is set, as other tests do.
    F, x, y, w = eager.nn.functional, wave(eager, 4), eager.zeros(4), eager.arange(4.0)
    assert eager.allclose(F.l1_loss(x, y, weight=w), (x.abs() * w).sum() / 6)
    assert eager.allclose(F.l1_loss(x, y, weight=w, reduction="none"), x.abs() * w)


def test_wrong_targets_are_refused() -> None:
    def program(t: Any) -> list[str]:
        F, x, y = t.nn.functional, wave(t, 4, 5), wave(t, 4, 5)
        return [message(lambda: F.margin_ranking_loss(x, y, t.ones(4))), message(lambda: F.cosine_embedding_loss(x[0], y, t.ones(4))),
                message(lambda: F.triplet_margin_loss(x, y, y, margin=0), ValueError),
                message(lambda: F.gaussian_nll_loss(x, y, -y.abs()), ValueError),
                message(lambda: F.gaussian_nll_loss(x, y, t.ones(3)), ValueError),
                message(lambda: F.multi_margin_loss(x, t.tensor([9, 0, 0, 0]))),
                message(lambda: F.mse_loss(x, y, weight=t.ones(2)), ValueError)]

    in_both(program)


def test_ctc() -> None:
    def program(t: Any) -> list[Any]:
        ctc, x = t.nn.functional.ctc_loss, 2 * wave(t, 6, 3, 4)
        labels, flat = t.tensor([[1, 2, 2], [3, 1, 0], [1, 1, 1]]), t.tensor([1, 2, 2, 3, 1, 1, 1, 1])
        logs = x.log_softmax(2)
        return [with_grad(t, lambda x: ctc(x.log_softmax(2), labels, t.tensor([6, 5, 6]), t.tensor([3, 2, 3])), x),
                with_grad(t, lambda x: ctc(x, flat, (6, 5, 3), (3, 2, 3), reduction="none", zero_infinity=True), logs),
                ctc(logs, flat, (6, 5, 3), (3, 2, 3), reduction="none"),
                ctc(logs, t.tensor([[1], [3], [1]]), (6, 6, 6), (1, 0, 1), 2, "sum"),
                ctc(logs[:, 0], t.tensor([1, 2]), t.tensor([5]), t.tensor([2])), message(lambda: ctc(logs, flat, (9, 6, 6), (3, 2, 3))),
                message(lambda: ctc(logs, flat, (6, 6), (1, 0, 1)))]

    in_both(program, 1e-4)


def test_distances() -> None:
    def program(t: Any) -> list[Any]:
        F, x, y = t.nn.functional, wave(t, 4, 5), (wave(t, 4, 5) * 2).cos()
        return [with_grad(t, f, x, y) for f in (F.pairwise_distance, lambda x, y: F.pairwise_distance(x, y, 1.0, keepdim=True),
                                                F.cosine_similarity, lambda x, y: F.pdist(x) + F.pdist(y, 1.0),
                                                lambda x, y: F.bilinear(x, y, wave(t, 3, 5, 5), wave(t, 3)))] + [
            with_grad(t, F.normalize, x * 0), with_grad(t, lambda x: F.normalize(x, 1.0, 0), x)]

    in_both(program)


def test_shrinkage() -> None:
    def program(t: Any) -> list[Any]:
        F, x = t.nn.functional, t.tensor([0.5, -0.5, 0.0, 1.0, -2.0, 0.3])
        y = x.clone()
        F.threshold_(F.leaky_relu_(F.hardtanh_(F.relu_(y))), 0.4, 0.1)
        return [[with_grad(t, f, x) for f in (F.softshrink, F.hardshrink, lambda x: F.threshold(x, 0.5, 3.0), F.rrelu,
                                              t.nn.Threshold(0.1, 20))], y,
                repr(t.nn.Softshrink()), repr(t.nn.RReLU()), message(lambda: F.softshrink(x, -1))]

    in_both(program)


def test_softmax_without_a_dimension() -> None:
    def program(t: Any) -> list[Any]:
        F, x = t.nn.functional, wave(t, 2, 3, 2)
        return [F.softmax(x), F.log_softmax(x[0]), F.softmin(x[0, 0]), t.nn.Softmax()(x[None]), repr(t.nn.Softmax())]

    with pytest.warns(UserWarning, match="Implicit dimension choice"):
        in_both(program)


def test_gumbel_softmax() -> None:
    F = eager.nn.functional
    eager.manual_seed(0)
    logits = eager.tensor([[0.0, 1.0, 2.0]]).expand(4000, 3).clone().requires_grad_()
    hard = F.gumbel_softmax(logits, hard=True)
    assert eager.allclose(hard.max(1).values, eager.ones(4000))
    assert eager.allclose(hard.mean(0), eager.tensor([0.0, 1.0, 2.0]).softmax(0), atol=0.03)
    hard[:, 0].sum().backward()
    assert logits.grad is not None
    assert logits.grad.abs().sum() > 0
    assert eager.allclose(F.gumbel_softmax(logits, 0.5).sum(1), eager.ones(4000))
