"""The training losses, written once for both frameworks.

The formulas use only the methods that JAX arrays and PyTorch tensors have in common. A backend
supplies, as `Ops`, the few functions that its arrays do not have as methods.
"""

import enum
import math
from collections.abc import Callable
from typing import Any, NamedTuple

Array = Any


class LossType(enum.Enum):
    """The training loss of a workload."""

    SOFTMAX_CROSS_ENTROPY = 0
    SIGMOID_CROSS_ENTROPY = 1
    MEAN_SQUARED_ERROR = 2
    CTC_LOSS = 3
    MEAN_ABSOLUTE_ERROR = 4


class Ops(NamedTuple):
    """The functions that a framework supplies to the losses.

    Attributes:
        log_softmax: Of logits, over their last axis.
        softplus: log(1 + exp(x)), elementwise.
        softmax: Of logits, over their last axis.
        sigmoid: Elementwise.
        cross_entropy: `cross_entropy(logits_BC, labels_B)`: softmax cross-entropy with integer
            labels, without smoothing.
        ctc: `ctc(logits_BTV, logit_paddings_BT, labels_BN, label_paddings_BN)`: the CTC loss of
            each example.
    """

    log_softmax: Callable[[Array], Array]
    softplus: Callable[[Array], Array]
    softmax: Callable[[Array], Array]
    sigmoid: Callable[[Array], Array]
    cross_entropy: Callable[[Array, Array], Array]
    ctc: Callable[[Array, Array, Array, Array], Array]


def per_example(
    loss_type: LossType, labels: Any, logits: Any, label_smoothing: float, ops: Ops
) -> Array:
    """Return the loss of each example, without a mask.

    Softmax cross-entropy: the labels are integers, of the logits' shape without its last axis, and
    so is the loss. Labels of the logits' own number of axes are a distribution over the classes for
    each example, as mixed rows have it. Smoothing mixes in the uniform distribution over all
    classes (Szegedy et al. 2016).

    Sigmoid cross-entropy: the labels are in [0, 1] and of the logits' shape, and so is the loss.
    Smoothing mixes in 1/2.

    Squared and absolute error: the mean over all axes but the first. Smoothing is ignored.

    CTC (Graves et al. 2006): `logits` is (logits_BTV, paddings_BT) and `labels` is (labels_BN,
    paddings_BN), or labels_BN alone, padded with 0; paddings are 1 where padded, and the blank is
    class 0. Labels that the frames cannot hold, which are as many as the labels and one more
    between two that are equal, have a loss and a gradient of 0. Smoothing is ignored.

    Args:
        loss_type: The loss.
        labels: The labels, as above.
        logits: The model's outputs, as above.
        label_smoothing: The share of smoothing, from 0 to 1; in JAX it may be a traced value.
        ops: The framework's functions.
    """
    smooth = label_smoothing
    match loss_type:
        case LossType.SOFTMAX_CROSS_ENTROPY:
            if labels.ndim == logits.ndim:  # distributions
                log_probabilities = ops.log_softmax(logits)
                mixed = labels * (1 - smooth) + smooth / logits.shape[-1]
                return -(mixed * log_probabilities).sum(-1)
            loss = ops.cross_entropy(logits, labels)
            if isinstance(smooth, float | int) and not smooth:  # A traced value cannot be tested.
                return loss
            return (1 - smooth) * loss - smooth * ops.log_softmax(logits).mean(-1)
        case LossType.SIGMOID_CROSS_ENTROPY:
            return ops.softplus(logits) - logits * (labels * (1 - smooth) + smooth / 2)
        case LossType.MEAN_SQUARED_ERROR:
            return _mean_of_rows((logits - labels) ** 2)
        case LossType.MEAN_ABSOLUTE_ERROR:
            return _mean_of_rows(abs(logits - labels))
        case LossType.CTC_LOSS:
            logits_BTV, paddings_BT = logits
            return ops.ctc(logits_BTV, paddings_BT, *_with_paddings(labels))
    raise AssertionError(loss_type)


def _mean_of_rows(errors: Array) -> Array:
    return errors.reshape(errors.shape[0], -1).mean(-1)


def _with_paddings(labels: Any) -> tuple[Array, Array]:
    """CTC's labels and their paddings, which are those of class 0 where they are not given."""
    if isinstance(labels, tuple | list):
        labels_BN, paddings_BN = labels
        return labels_BN, paddings_BN
    return labels, (labels == 0) * 1.0


def example_counts(loss_type: LossType, labels: Any) -> Array | None:
    """Return how many things each example's loss is the sum of, where its mean is over these.

    Args:
        loss_type: The loss.
        labels: The labels, as of `per_example`.

    Returns:
        Of CTC the number of labels, (B,); None for the other losses, whose mean is over what
        `per_example` returns.
    """
    if loss_type is not LossType.CTC_LOSS:
        return None
    return (1 - _with_paddings(labels)[1]).sum(1)


def reduce_masked(
    per_example_loss: Array, mask: Array | None, counts: Array | None = None
) -> dict[str, Any]:
    """Sum a loss over the examples that count.

    Args:
        per_example_loss: The losses; their first axes are those of the mask.
        mask: The weight of each example, 0 for one that does not count. A mask with fewer
            dimensions than the loss applies to all of the loss's trailing ones. None counts
            everything.
        counts: How many things each example's loss is the sum of (`example_counts`); None counts
            each loss as one.

    Returns:
        A dict of 'summed', the sum of the masked losses; 'n_valid_examples', the sum of the mask
        after it was spread over the loss's shape, or times `counts` and at least 1; and
        'per_example', the masked losses.
    """
    trailing = tuple(per_example_loss.shape)[(0 if mask is None else mask.ndim) :]
    if mask is None:
        masked, n_valid = per_example_loss, math.prod(trailing)
    else:
        masked = per_example_loss * mask.reshape(tuple(mask.shape) + (1,) * len(trailing))
        n_valid = mask.sum() * math.prod(trailing)
    if counts is not None:
        n_valid = (counts if mask is None else counts * mask).sum().clip(1)
    return {"summed": masked.sum(), "n_valid_examples": n_valid, "per_example": masked}
