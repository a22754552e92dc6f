"""Train nadamw once for each workload, and see when it meets the target on several splits.

A secret of `--validation-seed` leaves the training rows what they are, and evaluation does not
touch training, so one run shows what as many runs would: each state is evaluated on the usual
validation rows and on those of three secrets. A step is the first of a grid at which the target is
met. Files are appended to, and what is in them is not run again. From the repository's root:

    python tests/benchmarks/validation_seeds.py pytorch FILE.csv ag_news lm xsum
"""

import csv
import sys
from pathlib import Path

import reference_algorithms
from algoperf import backends, spec
from algoperf.data import validation_seed
from algoperf.data.loading import load_data
from algoperf.run_folder import writing
from algoperf.submission import loading
from algoperf.trial import adapt, own_loop
from algoperf.trial.evaluate import Evaluator

SECRETS = [f"validation seed of docs/targets.md, {number}" for number in (1, 2, 3)]
EVERY_STEPS, FIRST = 25, 100  # no target is met before
COLUMNS = ("workload", "framework", "commitment", "step", "value", "target")


def measure(name: str, framework: str, path: Path) -> None:
    """Train until the target is met on all rows, or to the step hint, and append every value."""
    own = own_loop.load(name, framework)
    definition, scale = own.definition, own.scale
    target = scale.targets["builtin"].validation
    backend = backends.load(framework)
    splits = {"": own.data}
    for secret in map(validation_seed.derive, SECRETS):
        rows = load_data(definition, scale, "builtin", secret.rows_seed)
        splits[secret.short] = rows
    evaluators = {
        short: Evaluator(backend, own.workload, definition, rows, scale)
        for short, rows in splits.items()
    }
    loaded = loading.load(loading.inspect(reference_algorithms.path("nadamw")), framework)
    hyperparameters = spec.make_hyperparameters(loaded.module.DEFAULTS)
    functions = adapt.submission_functions(loaded, backend, own.workload, hyperparameters)
    params, model_state = own.init()
    common = {"workload": own.workload, "hyperparameters": hyperparameters}
    state = functions.init_optimizer_state(
        model_params=params, model_state=model_state, rng=own.rng(0), **common
    )
    missed = set(evaluators)
    for step in range(1, scale.step_hint + 1):
        state, params, model_state = functions.update_params(
            current_param_container=params,
            model_state=model_state,
            batch=next(own.batches),
            optimizer_state=state,
            global_step=step - 1,
            rng=own.rng(step - 1),
            **common,
        )
        if step < FIRST or step % EVERY_STEPS:
            continue
        rows = []
        for short, evaluator in evaluators.items():
            if definition.generates_text:  # without the pass over all rows for the loss
                values = evaluator._write("validation", params, model_state, whole=False)
            else:
                values = evaluator("validation", params, model_state)
            value = values[definition.target_metric]
            rows.append((name, framework, short, step, value, target))
            if value >= target if definition.higher_is_better else value <= target:
                missed.discard(short)
        writing.append_rows(path, COLUMNS, [dict(zip(COLUMNS, row, strict=True)) for row in rows])
        if not missed:
            break


def has_ended(name: str, framework: str, path: Path) -> bool:
    """Whether the file has a workload's run."""
    if not path.exists():
        return False
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    return any((row["workload"], row["framework"]) == (name, framework) for row in rows)


if __name__ == "__main__":
    used, given, *names = sys.argv[1:]
    for each in names:
        if not has_ended(each, used, Path(given)):
            measure(each, used, Path(given))
