"""Search spaces: what parses, what each mistake is told, and where the points lie."""

import json
import math

import pytest

from algoperf.errors import UserError
from algoperf.submission import requirements, search_space
from algoperf.workload.pretrained import files

UNIT = {"min": 0.0, "max": 1.0, "scaling": "linear"}
THREE = {
    "learning_rate": {"min": 1e-4, "max": 1e-1, "scaling": "log"},
    "momentum": {"min": -1, "max": 3, "scaling": "linear"},
    "batch_size": {"feasible_points": [16, 32, 64]},
}


def points(space, count, seed=0, study=0):
    parsed = search_space.parse(space, "space.json")
    return [search_space.point(parsed, seed, study, k) for k in range(count)]


def cells(values, count):
    """Which of `count` equal cells of [0, 1) each value lies in."""
    return [math.floor(value * count) for value in values]


@pytest.mark.parametrize("study", [0, 1, 7])
@pytest.mark.parametrize(
    ("name", "base", "powers"), [("a", 2, (1, 2, 3, 4)), ("b", 3, (1, 2)), ("c", 5, (1, 2))]
)
def test_halton_cells(study, name, base, powers):
    """What makes it a Halton sequence: base^k points in a row, one in each cell of base^-k."""
    drawn = points({"c": UNIT, "a": UNIT, "b": UNIT}, 50, study=study)
    values = [point[name] for point in drawn]
    for power in powers:
        size = base**power
        for start in range(0, 50 - size + 1, size):
            assert sorted(cells(values[start : start + size], size)) == list(range(size))


def test_point_k_is_the_sequences_kth():
    """The first digit of point k is a permutation of k's last digit, so no point is skipped."""
    values = [point["a"] for point in points({"a": UNIT, "b": UNIT}, 16)]
    assert [cell ^ (k % 2) for k, cell in enumerate(cells(values, 2))] in ([0] * 16, [1] * 16)
    quarters = cells(values, 4)
    assert all(quarters[k] == quarters[k % 4] for k in range(16))


def test_dimensions_are_not_the_same_sequence():
    drawn = points({"a": UNIT, "b": UNIT}, 6)
    cells_of_the_square = {(cells([p["a"]], 2)[0], cells([p["b"]], 3)[0]) for p in drawn}
    assert len(cells_of_the_square) == 6  # by the Chinese remainder theorem


def test_values_are_kept():
    """Golden values: a study that is run again, anywhere, draws the points of its first time."""
    drawn = points(THREE, 3, seed=5, study=2)
    assert [point["batch_size"] for point in drawn] == [64, 16, 64]
    for name, values in {
        "learning_rate": [0.06298321235212662, 0.006298321235212666, 0.0006298321235212664],
        "momentum": [1.6686336385531688, 2.4686336385531686, 0.8686336385531679],
    }.items():
        assert [point[name] for point in drawn] == pytest.approx(values, rel=1e-12)


def test_linear_and_log_ranges():
    linear = [point["momentum"] for point in points(THREE, 25)]  # base 5: the third name
    assert all(-1 <= value < 3 for value in linear)
    assert sorted(cells([(value + 1) / 4 for value in linear], 25)) == list(range(25))
    log = [point["learning_rate"] for point in points(THREE, 9)]  # base 3
    shares = [(math.log10(value) + 4) / 3 for value in log]
    assert all(1e-4 <= value <= 1e-1 for value in log)
    assert sorted(cells(shares, 9)) == list(range(9))


def test_interval_and_choice_at():
    assert search_space.Interval(1e-4, 1e-1, True).at(1 / 3) == pytest.approx(1e-3)
    assert search_space.Interval(1e-3, 1e-3, True).at(0.7) == 1e-3
    assert search_space.Interval(-1, 3, False).at(0.25) == 0.0
    choice = search_space.Choice((16, 32, 64))
    shares = [0.0, 0.33, 0.34, 0.66, 0.67, 0.999, 1.0]
    assert [choice.at(share) for share in shares] == [16, 16, 32, 32, 64, 64, 64]


def test_feasible_points_are_balanced_and_kept_as_given():
    space = {"flag": {"feasible_points": [True, False]}}
    drawn = [point["flag"] for point in points(space, 8)]
    assert [drawn.count(True), drawn.count(False)] == [4, 4]
    assert all(type(value) is bool for value in drawn)
    assert all(type(point["batch_size"]) is int for point in points(THREE, 4))


def test_studies_seeds_and_spaces_draw_different_points():
    narrower = {**THREE, "learning_rate": {"min": 1e-4, "max": 1e-2, "scaling": "log"}}
    drawn = [
        point["momentum"]
        for arguments in ({}, {"study": 1}, {"study": 2}, {"seed": 1}, {"seed": 1, "study": 1})
        for point in points(THREE, 5, **arguments)
    ]
    drawn += [point["momentum"] for point in points(narrower, 5)]
    assert len(set(drawn)) == 30


def test_slices_neither_repeat_nor_drop():
    space = search_space.parse(json.dumps(THREE), "space.json")
    whole = points(THREE, 10, seed=3, study=1)
    slices = [search_space.point(space, 3, 1, k) for k in (7, 8, 9, 0, 1, 2, 3, 4, 5, 6)]
    assert slices[3:] + slices[:3] == whole
    assert len({point["learning_rate"] for point in whole}) == 10


def test_the_same_space_spelt_otherwise():
    text = (
        '{"batch_size": {"feasible_points": [16, 32, 64]},'
        ' "momentum": {"scaling": "linear", "max": 3.0, "min": -1.0},'
        ' "learning_rate": {"max": 0.1, "scaling": "log", "min": 1e-4}}'
    )
    assert points(text, 5) == points(THREE, 5)


def test_list_is_used_in_order_in_every_study():
    space = [{"lr": 0.1, "steps": 3}, {"steps": 4, "lr": 0.2}, {"lr": 0.3, "steps": 5}]
    for study in (0, 1):
        assert points(space, 3, study=study) == space
    parsed = search_space.parse(space, "space.json")
    assert (parsed.names, parsed.size) == (("lr", "steps"), 3)
    with pytest.raises(UserError, match=r"space.json lists 3 points, none for trial 4"):
        search_space.point(parsed, 0, 0, 3)


def test_points_are_the_callers_own():
    parsed = search_space.parse([{"lr": 0.1}], "space.json")
    search_space.point(parsed, 0, 0, 0)["lr"] = 9
    assert search_space.point(parsed, 0, 0, 0) == {"lr": 0.1}


def test_names_and_size_of_an_object():
    parsed = search_space.parse(THREE, "space.json")
    assert (parsed.names, parsed.size) == (("learning_rate", "momentum", "batch_size"), None)


def test_read(tmp_path):
    file = tmp_path / "tuning_search_space.json"
    file.write_text(json.dumps(THREE))
    assert search_space.point(search_space.read(file), 0, 0, 0) == points(THREE, 1)[0]
    file.write_text("{\n  'lr': 1}")
    with pytest.raises(UserError, match=r"tuning_search_space.json:2:3: not JSON"):
        search_space.read(str(file))
    file.write_bytes(b"\xff\xfe{}")
    with pytest.raises(UserError, match=r"tuning_search_space.json: not UTF-8 text; give"):
        search_space.read(file)


def test_byte_order_marks_hide_nothing(tmp_path):
    file = tmp_path / "space.json"
    file.write_text('[{"rate": 1, "rate": 2}]')
    before = search_space.read(file).points, search_space.repeated_text(file)
    assert "rate more than once" in before[1]
    file.write_bytes(b"\xef\xbb\xbf" + file.read_bytes())
    assert (search_space.read(file).points, search_space.repeated_text(file)) == before
    asked = b"\xef\xbb\xbfno-such-package\n"
    (tmp_path / requirements.FILE_NAME).write_bytes(asked)
    assert "asks for no-such-package" in requirements.unmet_text(tmp_path / "submission.py")
    (tmp_path / "config.json").write_bytes(b'\xef\xbb\xbf{"model_type": "bart"}')
    assert files.read_json(tmp_path / "config.json") == {"model_type": "bart"}


def test_read_what_is_not_there(tmp_path):
    with pytest.raises(UserError, match=r"none.json: No such file or directory; give a JSON file"):
        search_space.read(tmp_path / "none.json")
    with pytest.raises(UserError, match=r"Is a directory; give a JSON file"):
        search_space.read(tmp_path)


def test_of_a_name_given_twice_the_last_counts(tmp_path):
    """As in a space of AlgoPerf's own prize qualification."""
    text = '[{"smoothing": 0.1, "smoothing": 0.2, "lr": 1}, {"lr": 2, "smoothing": null}]'
    (file := tmp_path / "space.json").write_text(text)
    expected = ({"smoothing": 0.2, "lr": 1}, {"lr": 2, "smoothing": None})
    assert search_space.read(file).points == expected
    told = "space.json gives smoothing more than once; the last counts"
    assert search_space.repeated_text(file) == told
    file.write_text(text.replace('"smoothing": 0.1, ', ""))
    assert search_space.repeated_text(file) == ""
    assert search_space.repeated_text(tmp_path / "none.json") == ""


def test_nothing_may_be_a_feasible_point():
    drawn = points({"grad_clip": {"feasible_points": [None, 1.0]}}, 2)
    assert {point["grad_clip"] for point in drawn} == {None, 1.0}


def test_the_space_of_two_frameworks_folders_is_above_them(tmp_path):
    submission = tmp_path / "sam" / "jax" / "submission.py"
    submission.parent.mkdir(parents=True)
    assert search_space.file_of(submission) is None
    above = tmp_path / "sam" / search_space.FILE_NAME
    above.write_text("{}")
    assert search_space.file_of(submission) == above
    assert search_space.file_of(tmp_path / "sam" / "other" / "submission.py") is None
    (beside := submission.with_name(search_space.FILE_NAME)).write_text("{}")
    assert search_space.file_of(submission) == beside


RANGE = {"min": 0.1, "max": 1, "scaling": "log"}
MISTAKES = [
    ('{"lr": {"min": 1 "max"', "space.json:1:18: not JSON (Expecting ',' delimiter"),
    ('{"lr": 1} x', "space.json:1:11: not JSON (Extra data"),
    ("", "space.json is empty; give an object, name -> "),
    (" \n", "space.json is empty; give an object, name -> "),
    ("{}", "space.json is empty; give an object, name -> "),
    ("[]", "space.json is empty; give an object, name -> "),
    ("3", "space.json is 3; give an object, name -> "),
    ("null", "space.json is null; give an object, name -> "),
    ({"lr": 0.1}, 'space.json: lr is 0.1; give {"min", "max", "scaling"}, or {"feasible_points"'),
    ({"lr": [0.1]}, 'space.json: lr is a list; give {"min", "max", "scaling"}'),
    ({"lr": {**RANGE, "min": 2}}, "space.json: lr: min 2 is greater than max 1; swap them"),
    ({"lr": {**RANGE, "min": 0}}, "space.json: lr: min 0 with log scaling; give a min above 0"),
    ({"lr": {**RANGE, "min": -1}}, "space.json: lr: min -1 with log scaling; give a min above 0"),
    ({"lr": {**RANGE, "min": "0.1"}}, "space.json: lr: min is '0.1'; give a finite number"),
    ({"lr": {**RANGE, "max": True}}, "space.json: lr: max is true; give a finite number"),
    ({"lr": {**RANGE, "max": None}}, "space.json: lr: max is null; give a finite number"),
    ({"lr": {**RANGE, "max": 10**309}}, f"lr: max is {10**309}; give a finite number"),
    ([{"lr": 10**309}], f"point 1: lr is {10**309}; give a finite number, a string"),
    (
        '{"lr": {"min": 1, "max": Infinity, "scaling": "log"}}',
        "lr: max is inf; give a finite number",
    ),
    ({"lr": {**RANGE, "step": 1}}, "lr: unknown key 'step'; allowed here: min, max, scaling"),
    ({"lr": {**RANGE, "scaling": "ln"}}, "lr: unknown scaling 'ln'; give linear or log"),
    ({"lr": {**RANGE, "scaling": ["log"]}}, "lr: unknown scaling ['log']; give linear or log"),
    (
        {"lr": {"min": 1, "max": 2}},
        "lr: scaling is missing; give min, max and scaling, or feasible",
    ),
    ({"lr": {}}, "lr: min is missing; give min, max and scaling, or feasible_points"),
    (
        {"lr": {"feasible_points": [1], "scaling": "log"}},
        "lr: unknown key 'scaling'; allowed here: feasible_points",
    ),
    (
        {"lr": {"feasible_points": []}},
        "lr: feasible_points is an empty list; give a list of at least",
    ),
    ({"lr": {"feasible_points": 3}}, "lr: feasible_points is 3; give a list of at least one value"),
    ({"lr": {"feasible_points": [math.nan]}}, "lr: a feasible point is nan; give a finite number"),
    ({"lr": {"feasible_points": [[1]]}}, "lr: a feasible point is a list; give a finite number"),
    ({"l r": RANGE}, "space.json: 'l r' cannot name a hyperparameter; give a Python identifier"),
    ({"lambda": RANGE}, "space.json: 'lambda' cannot name a hyperparameter; give a Python"),
    ({"_lr": RANGE}, "space.json: '_lr' cannot name a hyperparameter; give a Python identifier"),
    ([0.1], "space.json: point 1 is 0.1; give an object, name -> value"),
    ([{"lr": 1}, {}], "space.json: point 2 is an empty object; give an object, name -> value"),
    ([{"lr": 1}, [2]], "space.json: point 2 is a list; give an object, name -> value"),
    ([{"lr": 1}, {"rate": 2}], "point 2 and point 1 differ in lr, rate; give every point the same"),
    ([{"lr": 1, "b": 1}, {"lr": 1}], "point 2 and point 1 differ in b; give every point the same"),
    ([{"lr": {"min": 1}}], "space.json: point 1: lr is an object; give a finite number, a string"),
    ([{"1lr": 1}], "space.json: '1lr' cannot name a hyperparameter; give a Python identifier"),
]


@pytest.mark.parametrize(("space", "message"), MISTAKES, ids=range(len(MISTAKES)))
def test_mistake(space, message):
    with pytest.raises(UserError) as caught:
        search_space.parse(space, "space.json")
    told = str(caught.value)
    assert message in told
    assert told.startswith("search space space.json")
    assert "\n" not in told


class Draws:
    """A random generator that gives these numbers."""

    def __init__(self, *numbers):
        self._numbers = iter(numbers)

    def random(self):
        return next(self._numbers)


# What is drawn for each value: whether it is drawn anew (below 0.1), up (below 0.5), and where.
UP, DOWN, ANEW = (0.5, 0.2, 0.9), (0.5, 0.7, 0.9), (0.05, 0.2, 0.75)


@pytest.mark.parametrize(
    ("given", "draws", "expected"),
    [
        ((32, 0.01, 2.0), (UP, UP, UP), (64, 0.012, 2.4)),
        ((32, 0.01, 2.0), (DOWN, DOWN, DOWN), (16, 0.008, 1.6)),
        ((64, 0.09, 2.9), (UP, UP, UP), (64, 0.1, 3.0)),  # each at its end
        ((16, 1.1e-4, -0.9), (DOWN, DOWN, UP), (16, 1e-4, -1.0)),
        ((16, 0.01, 2.0), (ANEW, ANEW, ANEW), (64, 10**-1.75, 2.0)),
        ((48, 0.01, 0.0), (UP, UP, DOWN), (48, 0.012, 0.0)),  # 48 has no neighbour, nor has 0
    ],
)
def test_a_point_near_another(given, draws, expected):
    space = search_space.parse(THREE, "space.json")
    names = ("batch_size", "learning_rate", "momentum")  # in the order in which they are drawn
    point = {**dict(zip(names, given, strict=True)), "other": "stays"}
    explored = search_space.explored(
        space, point, Draws(*(each for draw in draws for each in draw))
    )
    assert explored == pytest.approx({**dict(zip(names, expected, strict=True)), "other": "stays"})


def test_neighbours_are_told_apart_by_their_type():
    choice = search_space.Choice((1, True, 1.0, "1", None))
    up = {repr(value): choice.near(value, up=True) for value in choice.values}
    assert list(map(repr, up.values())) == ["True", "1.0", "'1'", "None", "None"]


@pytest.mark.parametrize(("draw", "place"), [(UP, 2), (DOWN, 0), (ANEW, 3)])
def test_a_listed_point_near_another(draw, place):
    listed = [{"rate": float(k), "kind": "ab"[k % 2]} for k in range(4)]
    space = search_space.parse(listed, "space.json")
    explored = search_space.explored(space, {**listed[1], "other": 5}, Draws(*draw))
    assert explored == {**listed[place], "other": 5}


@pytest.mark.parametrize("space", [THREE, [{"a": 1, "b": None}, {"a": 2.5, "b": "c"}]])
def test_the_form_of_a_space_is_what_it_was_parsed_from(space):
    parsed = search_space.parse(space, "space.json")
    assert search_space.parse(json.dumps(parsed.form), "space.json") == parsed
