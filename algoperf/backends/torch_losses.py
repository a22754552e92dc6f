"""What PyTorch has for the losses of `algoperf.losses`."""

import functools

import torch
from torch import nn

from algoperf import losses


def _cross_entropy(logits_BC: torch.Tensor, labels_B: torch.Tensor) -> torch.Tensor:
    if labels_B.ndim == 1:  # the common case, without the views' cost in the backward pass
        return nn.functional.cross_entropy(logits_BC, labels_B.long(), reduction="none")
    loss = nn.functional.cross_entropy(
        logits_BC.flatten(0, -2), labels_B.flatten().long(), reduction="none"
    )
    return loss.view(labels_B.shape)


def _ctc(
    logits_BTV: torch.Tensor,
    paddings_BT: torch.Tensor,
    labels_BN: torch.Tensor,
    paddings_BN: torch.Tensor,
) -> torch.Tensor:
    return nn.functional.ctc_loss(
        logits_BTV.log_softmax(-1).transpose(0, 1),
        labels_BN.long(),
        (1 - paddings_BT).sum(1).long(),
        (1 - paddings_BN).sum(1).long(),
        reduction="none",
        zero_infinity=True,  # labels that the frames cannot hold
    )


OPS = losses.Ops(
    log_softmax=functools.partial(torch.log_softmax, dim=-1),
    softplus=nn.functional.softplus,
    softmax=functools.partial(torch.softmax, dim=-1),
    sigmoid=torch.sigmoid,
    cross_entropy=_cross_entropy,
    ctc=_ctc,
)
