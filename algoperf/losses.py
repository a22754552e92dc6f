"""The losses, once for both frameworks: formulas on what array methods have in common.

A backend brings the few functions (`Ops`) that its arrays do not have as methods.
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
    """What a framework brings. `cross_entropy(logits_BC, labels_B)` is softmax, unsmoothed."""

    log_softmax: Callable[[Array], Array]
    softplus: Callable[[Array], Array]
    softmax: Callable[[Array], Array]
    sigmoid: Callable[[Array], Array]
    cross_entropy: Callable[[Array, Array], Array]
    ctc: Callable[[Array, Array, Array, Array], Array]


def per_example(
    loss_type: LossType, labels: Any, logits: Any, label_smoothing: float, ops: Ops
) -> Array:
    """The unmasked loss of each example.

    Softmax cross-entropy: integer labels of the logits' shape less the last axis; smoothing mixes
    in the uniform distribution over all classes (Szegedy et al. 2016). Sigmoid cross-entropy:
    labels in [0, 1] of the logits' shape; smoothing mixes in 1/2. Squared and absolute error: the
    mean over all but the first axis. CTC (Graves et al. 2006): logits (logits_BTV, paddings_BT),
    labels (labels_BN, paddings_BN), 1 where padded, blank 0.
    """
    smooth = label_smoothing
    match loss_type:
        case LossType.SOFTMAX_CROSS_ENTROPY:
            loss = ops.cross_entropy(logits, labels)
            if isinstance(smooth, float | int) and not smooth:  # may be a traced value
                return loss
            return (1 - smooth) * loss - smooth * ops.log_softmax(logits).mean(-1)
        case LossType.SIGMOID_CROSS_ENTROPY:
            return ops.softplus(logits) - logits * (labels * (1 - smooth) + smooth / 2)
        case LossType.MEAN_SQUARED_ERROR:
            return _mean_of_rows((logits - labels) ** 2)
        case LossType.MEAN_ABSOLUTE_ERROR:
            return _mean_of_rows(abs(logits - labels))
        case LossType.CTC_LOSS:
            return ops.ctc(*logits, *labels)
    raise AssertionError(loss_type)


def _mean_of_rows(errors: Array) -> Array:
    return errors.reshape(errors.shape[0], -1).mean(-1)


def reduce_masked(per_example_loss: Array, mask: Array | None) -> dict[str, Any]:
    """Sum a loss over the examples that count.

    The mask may hold weights; one of fewer dimensions than the loss is spread over the loss's
    trailing ones. Returns 'summed' and 'n_valid_examples' (the sum of the spread mask), and the
    masked 'per_example'.
    """
    trailing = tuple(per_example_loss.shape)[(0 if mask is None else mask.ndim) :]
    if mask is None:
        masked, n_valid = per_example_loss, math.prod(trailing)
    else:
        masked = per_example_loss * mask.reshape(tuple(mask.shape) + (1,) * len(trailing))
        n_valid = mask.sum() * math.prod(trailing)
    return {"summed": masked.sum(), "n_valid_examples": n_valid, "per_example": masked}
