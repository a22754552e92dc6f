"""A workload with its rows and metrics, for a training loop that is not the benchmark's."""

import dataclasses
from typing import Any

from algoperf import backends, spec
from algoperf.data import batches
from algoperf.data.formats import sources
from algoperf.data.loading import load_data
from algoperf.data.tokenizers import PAD_ID
from algoperf.errors import UserError, choose
from algoperf.trial import seeds
from algoperf.trial.evaluate import Evaluator
from algoperf.workload import SPLITS, Data, Scale, WorkloadDefinition, catalogue


@dataclasses.dataclass(frozen=True, eq=False)
class LoadedWorkload:
    """What a trial of `algoperf run` trains and measures, in the hands of a researcher.

    Attributes:
        workload: The model, the loss and the facts, as a submission sees them.
        batches: An endless iterator of training batches on the device, in the order in which a
            trial of the same seed, study and trial number gets them.
        batch_size: Rows of a batch.
        definition: The workload's facts as data.
        scale: Its scale: sizes, budget and targets.
        data: The rows.
        seed: The trial's own seed, of which every random stream is made.
    """

    workload: spec.Workload
    batches: batches.TrainingQueue
    batch_size: int
    definition: WorkloadDefinition
    scale: Scale
    data: Data
    seed: int
    _backend: backends.Backend
    _evaluator: Evaluator

    def init(self) -> spec.ModelInitState:
        """Return (parameters, model state) as a trial starts with them.

        In PyTorch the parameters are the module itself, of which there is one: calling this again
        resets it.
        """
        self._backend.seed(seeds.pair(self.seed, seeds.UPDATE))
        return self.workload.init_model_fn(self._rng(seeds.INIT))

    def rng(self, step: int) -> spec.RandomState:
        """Return the random state that a trial hands to `update_params` at a step, from 0."""
        return self._rng(seeds.UPDATE, step)

    def evaluate(self, split: str, params: Any, model_state: Any = None) -> dict[str, float]:
        """Return a split's loss, metrics and number of rows, as an evaluation of a trial does.

        Args:
            split: 'train' (its first rows alone), 'validation' or 'test'.
            params: The framework's parameters: nested dicts of arrays, or the module.
            model_state: What `init` and `workload.model_fn` return beside them.
        """
        choose("split", split, SPLITS)
        return self._evaluator(split, params, model_state)

    def _rng(self, purpose: int, step: int = 0) -> spec.RandomState:
        return self._backend.random_state(seeds.pair(self.seed, purpose, step))


def load(
    name: str,
    framework: str,
    *,
    scale: str = "mini",
    data: str | None = None,
    batch_size: int | None = None,
    seed: int = 0,
    study: int = 0,
    trial: int = 1,
) -> LoadedWorkload:
    """Load a workload for a training loop of one's own.

    Args:
        name: As of `algoperf run --workload`.
        framework: 'jax' or 'pytorch'.
        scale: A name among the workload's scales.
        data: 'builtin', 'hub' or a folder; None for the scale's own source.
        batch_size: Rows of a training batch; None for the workload's own.
        seed: The seed of the runs to be like,
        study: their study, from 0,
        trial: and their trial, from 1: every trial has an order of rows and first values of its
            own.

    Raises:
        UserError: There is no such workload, framework, scale or data.
    """
    definition = catalogue.find(name)
    backends.check_installed(framework)
    choose(f"scale of {definition.name}", scale, list(definition.scales))
    kind, source = sources.resolve(definition, definition.scales[scale], data)
    sized = definition.scales[scale].on(kind)
    backend = backends.load(framework)
    rows = load_data(definition, sized, source)
    bound = backend.workload(definition, sized, kind, rows)
    train = rows.splits["train"]
    size = sized.batch_size if batch_size is None else batch_size
    if not 1 <= size <= batches.row_count(train):
        raise UserError(
            f"batch_size is {size}, expected 1 to the {batches.row_count(train)} training rows"
        )
    own_seed = seeds.trial_seed(seed, study, trial)
    buckets = batches.make_buckets(train, sized.buckets, PAD_ID)
    queue = batches.TrainingQueue(
        train, size, own_seed, backend.place, buckets=buckets, augmentation=rows.augmentation
    )
    evaluator = Evaluator(backend, bound, definition, rows, sized)
    return LoadedWorkload(bound, queue, size, definition, sized, rows, own_seed, backend, evaluator)
