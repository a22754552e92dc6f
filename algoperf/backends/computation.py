"""How a trial computes what it trains: in which precision, in how many parts a step, and what it
keeps for the backward pass. It trains the same function on the same batches whatever is chosen.
"""

import dataclasses
import re
from collections.abc import Mapping, Sequence
from typing import Any

from algoperf.errors import UserError

PRECISIONS = ("float32", "bf16", "fp16")
_BLOCK = re.compile(r"block_\d+")


@dataclasses.dataclass(frozen=True)
class Computation:
    """The run's options of this kind, honoured by both frameworks.

    `precision` is that of the model's forward and backward pass; parameters, gradients as an
    optimizer gets them, its state, logits and losses are float32 always. `accumulate` is into how
    many micro-batches the optimizer form's step cuts a batch, which needs less memory for the same
    update. With `checkpoint_activations` the backward pass computes each block anew from its input
    instead of keeping what is inside (Chen et al. 2016, arXiv:1604.06174). With `offload` the
    optimizer form's state is in the host's memory between steps, and on the device within them.
    """

    precision: str = "float32"
    accumulate: int = 1
    checkpoint_activations: bool = False
    offload: bool = False

    @property
    def scales_loss(self) -> bool:
        """Whether small gradients would be lost without loss scaling."""
        return self.precision == "fp16"

    def check_form(self, *, is_full_form: bool) -> None:
        """Raise UserError for what needs the library's own update step, where a submission brings
        one.
        """
        if not is_full_form:
            return
        if self.scales_loss:
            raise UserError(
                "--precision fp16 needs loss scaling, which the library can do in the optimizer "
                "form only; this submission is in the full form: use bf16 or float32"
            )
        if self.accumulate > 1:
            raise UserError(
                "--accumulate cuts the batch in the library's own step, in the optimizer form "
                "only; this submission is in the full form, whose update_params gets the whole "
                "batch"
            )
        if self.offload:
            raise UserError(
                "--offload moves the state before and after the library's own step, in the "
                "optimizer form only; this submission is in the full form, whose state is its own"
            )

    def check_batch_size(self, batch_size: int) -> None:
        """Raise UserError where the micro-batches would not be of one size."""
        if batch_size % self.accumulate:
            raise UserError(
                f"--accumulate {self.accumulate} does not divide the batch size {batch_size}; "
                "choose a divisor, or another --batch-size"
            )

    def check_blocks(self, names: Sequence[str]) -> None:
        """Raise UserError where no parameter's name has a block in it whose activations could be
        computed anew.
        """
        if self.checkpoint_activations and not any(map(is_block, _folders(names))):
            raise UserError(
                "--checkpoint-activations works on a model's blocks (modules named block_<n>), and "
                "this workload's has none"
            )

    def micro_batches(self, batch: Mapping[str, Any]) -> list[dict[str, Any]]:
        """The batch in `accumulate` parts: part i has the rows i, i + accumulate, ...

        So every device that holds a piece of the batch holds an equal piece of each part.
        """
        return [
            {key: value[part :: self.accumulate] for key, value in batch.items()}
            for part in range(self.accumulate)
        ]


USUAL = Computation()


def is_block(module: str) -> bool:
    """Whether a module of that name is one of a model's repeated blocks."""
    return _BLOCK.fullmatch(module) is not None


def _folders(names: Sequence[str]) -> set[str]:
    return {folder for name in names for folder in name.split("/")[:-1]}
