"""An exception in any function of a submission ends its trial, and is written down."""

import pytest

from algoperf.run_folder import run_log
from algoperf.trial import assemble
from algoperf.trial.clock import Ledger
from algoperf.trial.plan import TrialPlan

FULL = """
def init_optimizer_state():
    check("init_optimizer_state", 0)

def data_selection(input_queue, global_step):
    check("data_selection", global_step)
    return next(input_queue)

def update_params(optimizer_state, current_param_container, model_state, global_step):
    check("update_params", global_step)
    return optimizer_state, current_param_container, model_state

def prepare_for_eval(optimizer_state, current_param_container, model_state):
    check("prepare_for_eval", 1)
    return optimizer_state, current_param_container, model_state
"""
TORCH_FORM = """
import torch

class Optimizer(torch.optim.SGD):
    def step(self, closure=None):
        super().step(closure)
        check("step", 1)

class Scheduler:
    def step(self):
        check("schedule", 1)

def torch_optimizer(params):
    check("torch_optimizer", 0)
    return Optimizer(params.tensors(), 0.1), Scheduler()
"""
JAX_FORM = """
def jax_optimizer():
    import optax
    check("jax_optimizer", 0)
    def init(params):
        check("init", 0)
    def update(updates, state, params=None):
        check("update", 1)
        return updates, state
    def schedule(step):
        check("schedule", 1)
        return -0.1
    mine = optax.GradientTransformation(init, update)
    return optax.chain(mine, optax.scale_by_schedule(schedule))
"""
CHECK = """
DEFAULTS = {{}}

def check(where, step):
    if where == "{where}" and step == {step}:
        raise RuntimeError(f"broken on purpose in {{where}}")

def eval_params(params):
    check("eval_params", 1)
    return params
"""
OPTIMIZER_FORMS = {"pytorch": TORCH_FORM, "jax": JAX_FORM}
FUNCTIONS = [
    *(
        (framework, FULL, where, step)
        for framework in OPTIMIZER_FORMS
        for where, step in (
            ("init_optimizer_state", 0),
            ("data_selection", 2),
            ("update_params", 2),
            ("prepare_for_eval", 1),
        )
    ),
    *(("pytorch", TORCH_FORM, w, s) for w, s in (("torch_optimizer", 0), ("step", 1))),
    *(("jax", JAX_FORM, w, s) for w, s in (("jax_optimizer", 0), ("init", 0), ("update", 1))),
    *((f, OPTIMIZER_FORMS[f], w, 1) for f in OPTIMIZER_FORMS for w in ("schedule", "eval_params")),
]


@pytest.mark.parametrize(("framework", "form", "where", "step"), FUNCTIONS)
def test_an_exception_in_a_function_is_recorded(tmp_path, framework, form, where, step):
    """In each function of both forms; what was measured before stays."""
    text = CHECK.format(where=where, step=step)
    (tmp_path / "mine.py").write_text(
        text.partition("def eval_params")[0] + form if form is FULL else text + form
    )
    plan = TrialPlan(
        workload="digits", scale="mini", data="builtin", source_kind="builtin",
        framework=framework, submission=str(tmp_path / "mine.py"), out=str(tmp_path / "runs"),
        experiment="x", study=0, trial=1, seed=0, max_steps=3, eval_every_steps=3,
    )  # fmt: skip
    assembled = assemble.assemble(plan, Ledger(), lambda *_, **__: None)
    assemble.run(assembled)
    trial = assembled.trial
    assert trial.status == "failed"
    assert trial.error["cause"] == f"RuntimeError: broken on purpose in {where} (mine.py:6)"
    assert 'mine.py", line' in trial.error["traceback"]
    assert len(run_log.evaluations(assembled.log.folder)) == (step == 2)
