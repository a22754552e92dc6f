"""Adapt a submission to the calls of the training loop, which knows only the full form."""

import functools
from typing import Any

from algoperf import backends, errors, spec
from algoperf.backends.shared import OptimizerFunctions, StepSettings
from algoperf.submission import loading, older
from algoperf.trial.loop import Functions

RECORD_EVERY_STEPS = 10


def check_all_read(outline: loading.Outline, hyperparameters: Any) -> None:
    """Check that every hyperparameter of an optimizer-form submission has been read by someone.

    Args:
        outline: The submission's outline.
        hyperparameters: The trial's hyperparameters, from `spec.make_hyperparameters`, or None.

    Raises:
        UserError: Neither the library nor the submission reads one of them.
    """
    if hyperparameters is None or outline.is_full_form:
        return
    for name in spec.unread(hyperparameters):
        raise errors.UserError(
            f"submission {outline.path}: nobody reads hyperparameter {name!r}; "
            f"the library itself reads: {', '.join(loading.LIBRARY_NAMES)}"
        )


def submission_functions(
    loaded: loading.Submission,
    backend: backends.Backend,
    bound: spec.Workload,
    hyperparameters: Any,
) -> Functions:
    """Return the submission's functions in the full form, whichever form it is written in.

    Args:
        loaded: The submission.
        backend: The framework's backend, which supplies the step of the optimizer form.
        bound: The workload.
        hyperparameters: The trial's hyperparameters.
    """
    given = loaded.functions
    is_own = functools.partial(loading.is_own, loaded.outline)
    if loaded.outline.is_full_form:
        update = given["update_params"]
        settle = older.settling(loaded.contract, backend.settle)

        def init_optimizer_state(**arguments: Any) -> Any:
            beside = arguments.get("model_params"), arguments.get("model_state")
            return settle(given["init_optimizer_state"](**arguments), beside)

        return Functions(
            init_optimizer_state,
            update,
            given.get("data_selection", _next_batch),
            given.get("prepare_for_eval"),
            wants_train_state="train_state" in update.takes,
            logs_scalars=loaded.logs_scalars,
            selects_data="data_selection" in given,
            is_own=is_own,
        )
    info = spec.TrainingInfo(
        bound.step_hint,
        bound.loss_type,
        bound.max_allowed_runtime_sec,
        rank=backend.ranks.rank,
        world_size=backend.ranks.count,
        shard=backend.ranks.shard,
    )
    make = given[loading.OPTIMIZER_FUNCTIONS[backend.name]]
    rate = given.get("learning_rate")
    own_eval_params = given.get("eval_params")
    settings = {
        name: getattr(hyperparameters, name)
        for name in ("grad_clip", "label_smoothing", "dropout_rate")
        if hasattr(hyperparameters, name)
    }
    # It counts as read, since `choose_batch_size` uses it.
    _ = getattr(hyperparameters, "batch_size", None)

    def learning_rate(step: int) -> float | None:
        return None if rate is None else rate(step=step, hyperparameters=hyperparameters, info=info)

    def eval_params(params: Any, optimizer_state: Any) -> Any:
        assert own_eval_params is not None
        return own_eval_params(
            params=params,
            optimizer_state=optimizer_state,
            hyperparameters=hyperparameters,
            info=info,
        )

    form = backend.optimizer_form(
        OptimizerFunctions(
            lambda params, hyperparameters: make(
                params=params, hyperparameters=hyperparameters, info=info
            ),
            eval_params,
            learning_rate,
            RECORD_EVERY_STEPS,
        ),
        StepSettings(**settings),
    )
    return Functions(
        loading.function_of(form.init_optimizer_state),
        loading.function_of(form.update_params),
        given.get("data_selection", _next_batch),
        eval_params=None if own_eval_params is None else form.eval_params,
        selects_data="data_selection" in given,
        is_own=is_own,
        indices_of_others=form.indices_of_others,
        notes=lambda: form.notes,
    )


def _next_batch(input_queue: Any, **_: Any) -> Any:
    return next(input_queue)
