"""Where a trial's point is from, in words: the same rules as those that choose it."""

from types import SimpleNamespace

import pytest

from algoperf.submission import loading
from algoperf.trial import choices
from algoperf.trial.plan import TrialPlan

OPTIMIZER = "DEFAULTS = {'rate': 1}\ndef jax_optimizer(): ...\n"
FULL = "import jax\ndef init_optimizer_state(): ...\ndef update_params(): ...\n"
SPACE = "SEARCH_SPACE = {'rate': {'feasible_points': [3]}}\n"
LIST = "SEARCH_SPACE = [{'rate': 3}, {'rate': 4}]\n"


@pytest.mark.parametrize(
    ("source", "ruleset", "given", "text", "point"),
    [
        (OPTIMIZER, "none", False, "its DEFAULTS", {"rate": 1}),
        (OPTIMIZER + SPACE, "none", False, "its DEFAULTS", {"rate": 1}),
        (OPTIMIZER + SPACE, "self", False, "its DEFAULTS", {"rate": 1}),
        (OPTIMIZER + SPACE, "external", False, "point 2 drawn from its SEARCH_SPACE", {"rate": 3}),
        (OPTIMIZER + LIST, "external", False, "point 2 listed in its SEARCH_SPACE", {"rate": 4}),
        (OPTIMIZER, "none", True, "point 2 listed in given.json", {"rate": 6}),
        (OPTIMIZER + SPACE, "external", True, "point 2 listed in given.json", {"rate": 6}),
        (OPTIMIZER.replace("{'rate': 1}", "{}"), "none", False, "no hyperparameters", {}),
        (FULL + SPACE, "none", False, "point 1 drawn from its SEARCH_SPACE", {"rate": 3}),
        (FULL + LIST, "none", False, "point 1 listed in its SEARCH_SPACE", {"rate": 3}),
        (FULL + LIST, "external", False, "point 2 listed in its SEARCH_SPACE", {"rate": 4}),
        (FULL + "DEFAULTS = {'rate': 1}\n", "none", False, "its DEFAULTS", {"rate": 1}),
        (FULL + LIST + "DEFAULTS = {}\n", "self", False, "no point: it tunes itself", None),
        (FULL + LIST, "self", False, "no point: it tunes itself", None),
        (FULL, "none", False, "no hyperparameters", None),
    ],
)
def test_point_source(tmp_path, source, ruleset, given, text, point):
    path = tmp_path / "mine.py"
    path.write_text(source)
    (tmp_path / "given.json").write_text('[{"rate": 5}, {"rate": 6}]')
    values = {}
    exec(source.replace("import jax\n", ""), values)
    loaded = SimpleNamespace(outline=loading.inspect(path), module=SimpleNamespace(**values))
    space = str(tmp_path / "given.json") if given else None
    plan = TrialPlan(
        *["x"] * 8, study=0, trial=2, seed=0, tuning_ruleset=ruleset, search_space=space
    )
    assert choices.point_source(plan, loaded) == text
    assert choices.tuning_point(plan, loaded) == point


def test_a_space_beside_the_file_is_named(tmp_path):
    (tmp_path / "mine.py").write_text(OPTIMIZER)
    (tmp_path / "tuning_search_space.json").write_text('[{"rate": 5}]')
    loaded = SimpleNamespace(
        outline=loading.inspect(tmp_path / "mine.py"), module=SimpleNamespace()
    )
    plan = TrialPlan(*["x"] * 8, study=0, trial=1, seed=0, tuning_ruleset="external")
    assert choices.point_source(plan, loaded) == "point 1 listed in its tuning_search_space.json"
