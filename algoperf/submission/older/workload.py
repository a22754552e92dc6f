"""A workload as version 0.5 had it: its dropout is fixed when the model is initialised."""

from typing import Any, Protocol

from algoperf import spec


class Axis(Protocol):
    """How parameters get their leading axis of devices."""

    def add(self, tree: Any) -> Any:
        """A copy for every device, stacked."""


class OlderWorkload:
    """Delegates to a workload; compares and hashes by identity, as jit's static arguments must.

    `model_fn` takes no dropout: its rate is the hyperparameter `dropout_rate`, where there is one,
    else the workload's own. There is one rate: `aux_dropout_rate`, for a second kind of dropout
    that our models do not have, is taken and not used.
    """

    def __init__(self, bound: spec.Workload, hyperparameters: Any, axis: Axis | None) -> None:
        self._bound = bound
        self._axis = axis
        self._dropout_rate = getattr(hyperparameters, "dropout_rate", None)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._bound, name)

    @property
    def metrics_logger(self) -> Any:
        """The bound workload's."""
        return self._bound.metrics_logger

    @metrics_logger.setter
    def metrics_logger(self, logger: Any) -> None:
        self._bound.metrics_logger = logger

    def init_model_fn(
        self,
        rng: spec.RandomState,
        dropout_rate: float | None = None,
        aux_dropout_rate: float | None = None,
    ) -> spec.ModelInitState:
        """Return fresh (parameters, model state), with an axis of devices where the submission
        expects one.
        """
        self._dropout_rate = self._dropout_rate if dropout_rate is None else dropout_rate
        params, model_state = self._bound.init_model_fn(rng)
        if self._axis is None:
            return params, model_state
        return self._axis.add(params), self._axis.add(model_state)

    def model_fn(
        self,
        params: spec.ParameterContainer,
        augmented_and_preprocessed_input_batch: Any,
        model_state: spec.ModelAuxiliaryState,
        mode: spec.ForwardPassMode,
        rng: spec.RandomState,
        update_batch_norm: bool,
        dropout_rate: float | None = None,
        use_running_average_bn: bool | None = None,
    ) -> tuple[spec.Tensor, spec.ModelAuxiliaryState]:
        """Return (logits, new model state). The last two arguments are the newer model_fn's, which
        some call under pmap. There the statistics of batch norm are those of a device's own rows.
        """
        return self._bound.model_fn(
            params,
            augmented_and_preprocessed_input_batch,
            model_state,
            mode,
            rng,
            update_batch_norm,
            self._dropout_rate if dropout_rate is None else dropout_rate,
            use_running_average_bn,
        )
