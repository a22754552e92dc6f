"""A workload in the form of version 0.5, where dropout is fixed when the model is initialised."""

from typing import Any, Protocol

from algoperf import spec


class Axis(Protocol):
    """An object that gives parameters their leading axis of devices."""

    def add(self, tree: Any) -> Any:
        """Return the tree with its arrays stacked, with one copy for each device."""


class OlderWorkload:
    """Presents a workload with the older contract's methods, and delegates everything else to it.

    It compares and hashes by identity, as static arguments of jit must. The dropout rate is the
    hyperparameter `dropout_rate`, if there is one, else the workload's own. There is only one rate:
    `aux_dropout_rate`, for a second kind of dropout that no model here has, is ignored.

    Args:
        bound: The workload.
        hyperparameters: The trial's hyperparameters.
        axis: Adds the axis of devices; None where the submission expects none.
    """

    def __init__(self, bound: spec.Workload, hyperparameters: Any, axis: Axis | None) -> None:
        self._bound = bound
        self._axis = axis
        self._dropout_rate = getattr(hyperparameters, "dropout_rate", None)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._bound, name)

    @property
    def metrics_logger(self) -> Any:
        """The logger of training scalars, which is the bound workload's."""
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
        """Return freshly initialised parameters and model state, and fix the dropout rate.

        Both get an axis of devices where the submission expects one.

        Args:
            rng: The random state that the initial values are drawn from.
            dropout_rate: The dropout rate; None keeps the hyperparameter's or the workload's own.
            aux_dropout_rate: Ignored.
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
        """Run the model on one batch and return its logits and its new auxiliary state.

        The arguments are those of `spec.Workload.model_fn`. The last two belong to the newer
        contract, and some submissions that run under pmap give them. Without `dropout_rate`, the
        rate from the initialisation is used. Under pmap the statistics of batch norm are those of
        each device's own rows.
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
