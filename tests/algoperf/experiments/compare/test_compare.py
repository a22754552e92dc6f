"""`algoperf compare` on made-up run folders: what a row says, worked out by hand."""

import csv
import json
import math

import pytest

from algoperf.cli import commands
from algoperf.experiments.compare import agreement, document, plots, tables
from algoperf.submission import search_space

REACHES = (0.1, 0.96, 0.975, 0.95)
MISSES = (0.1, 0.5, 0.965, 0.96)
COMPARE = ("compare", "digits", "--no-run", "--max-steps", "31", "--eval-every-steps", "10")


@pytest.fixture
def compare(tmp_path, capsys, undrawn):
    """`compare("--frameworks", "jax,pytorch")` -> (compare.json, what was printed)."""

    def run(*words):
        assert commands.main([*COMPARE, "--out", str(tmp_path), *words]) == 0
        return json.loads((tmp_path / "compare.json").read_text()), capsys.readouterr().out

    return run


def medians(row):
    return {name: each and each["median"] for name, each in row["measures"].items()}


def test_a_row_of_one_trial(tmp_path, compare, ended):
    told = {"parameters": {"total": 1000, "trainable": 25, "trainable_share": 0.025}}
    ended(tmp_path, **told)
    ended(tmp_path, framework="pytorch", values=MISSES)
    found, printed = compare("--frameworks", "jax,pytorch")
    jax, torch = found["rows"]
    assert medians(jax) == {
        "metric": 0.95,
        "best": 0.975,
        "test_metric": 0.9,
        "validation_loss": pytest.approx(0.05),
        "train_loss": 0.25,
        "time_to_target_s": 3.5,
        "steps_to_target": 21,
        "gradient_norm_mean": pytest.approx(7 / 3),
        "gradient_norm_last": 1.0,
        "steps": 31,
        "total_s": 10.0,
        "submission_s": 3.8,
        "step_s": pytest.approx(0.05),
        "first_step_s": 2.0,
        "compile_s": pytest.approx(1.95),
        "samples_per_s": 500.0,
        "inference_s_per_example": 0.002,
        "peak_process_bytes": 3 * 2**20,
        "peak_device_bytes": None,
        "cpu_s": 7.5,
        "parameters": 1000,
        "trainable_parameters": 25,
        "trainable_share": 0.025,
        "device_energy_j": None,
        "energy_kwh": None,
        "co2_kg": None,
    }
    assert (jax["trials"], jax["reached"], torch["reached"]) == (1, 1, 0)
    assert medians(torch)["time_to_target_s"] is None
    assert medians(torch)["best"] == 0.965
    quality, cost = printed.split("\ncost ")
    lines = [
        line.split()
        for line in quality.splitlines()
        if line.split()[1:2] in (["0.9500"], ["0.9600"])
    ]
    assert lines == [
        ["jax", "0.9500", "0.9750", "0.9000", "0.0500", "3.50", "21", "2.33", "1", "1/1"],
        ["pytorch", "0.9600", "0.9650", "0.9000", "0.0400", "-", "-", "2.33", "1", "0/1"],
    ]
    row = ["jax", "10.0", "3.8", "50.00", "1.95", "500", "2.000", "3", "7.5", "2.5"]
    assert row in [line.split() for line in cost.splitlines()]
    assert "times are of this machine and load: a processor, 4 threads" in printed
    assert "trainable %" in cost
    assert "device" not in cost


def test_the_median_counts_a_miss_as_infinite(tmp_path, compare, ended):
    ended(tmp_path)
    ended(tmp_path, trial=2, later_s=1.0)
    ended(tmp_path, trial=3, values=MISSES)
    ended(tmp_path, "digits_tanh")
    ended(tmp_path, "digits_tanh", trial=2, values=MISSES)
    found, printed = compare("--techniques", "full,tanh", "--framework", "jax", "--trials", "3")
    full, tanh = found["rows"]
    time_s = full["measures"]["time_to_target_s"]
    assert (time_s["low"], time_s["median"], time_s["high"]) == (3.5, 4.5, None)
    assert (full["reached"], full["trials"]) == (2, 3)
    assert full["measures"]["best"]["values"] == [0.975, 0.975, 0.965]
    assert tanh["measures"]["time_to_target_s"]["median"] is None  # between 3.5 and never
    assert (tanh["reached"], tanh["trials"]) == (1, 2)
    assert found["missing"] == ["tanh jax trial 3"]
    assert "note: not run yet: tanh jax trial 3" in printed
    assert "3.50..-" in printed
    with (tmp_path / "compare.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["time_to_target_s"] for row in rows] == ["4.5", "inf"]
    assert [row["time_to_target_s_low"] for row in rows] == ["3.5", "3.5"]
    assert [row["trainable_share"] for row in rows] == ["", ""]
    assert [row["technique"] for row in rows] == ["full", "tanh"]


def test_the_target_is_the_base_workloads_or_the_one_given(tmp_path, compare, ended):
    """digits_layer_norm's own target is 0.978, which its curve does not reach."""
    ended(tmp_path)
    ended(tmp_path, "digits_layer_norm")
    words = "--techniques", "full,layer_norm", "--framework", "jax"
    found, _ = compare(*words)
    assert [medians(row)["steps_to_target"] for row in found["rows"]] == [21, 21]
    found, _ = compare(*words, "--target", "0.96")
    assert [medians(row)["steps_to_target"] for row in found["rows"]] == [11, 11]


def test_the_other_metrics_of_summaries(tmp_path, capsys, ended, undrawn):
    test = {"rouge1": 0.5, "rouge2": 0.25, "rougeL": 0.375}
    final = {"validation/rouge2": 0.2, **{f"test/{name}": value for name, value in test.items()}}
    for framework in ("jax", "pytorch"):
        ended(tmp_path, "xsum", framework, metric="rouge2", final=final)
    words = [*COMPARE, "--out", str(tmp_path), "--frameworks", "jax,pytorch"]
    words[1] = "xsum"
    assert commands.main(words) == 0
    header, row = (line.split() for line in capsys.readouterr().out.splitlines()[4:7:2])
    assert " ".join(header[1:9]) == "rouge2 best test test rouge1 test rougeL time"
    assert row[:7] == ["jax", "0.2000", "0.9750", "0.2500", "0.5000", "0.3750", "2.50"]
    with (tmp_path / "compare.csv").open() as file:
        first = next(csv.DictReader(file))
    assert (first["test_rouge1"], first["test_rougeLsum"]) == ("0.5", "")


def test_the_frameworks_curves(tmp_path, compare, ended):
    """Training losses differ by 0.001 / 1.001 at step 10, by 0.1 / 0.5 at step 30 and nowhere else;
    the last accuracies are 0.95 and 0.96.
    """
    ended(tmp_path, losses=(2.0, 1.0, 0.5, 0.5))
    ended(tmp_path, framework="pytorch", losses=(2.0, 1.001, 0.5, 0.4), values=MISSES)
    found, printed = compare("--frameworks", "jax,pytorch")
    (told,) = found["agreement"]
    assert told["step_0"] == 0
    assert told["first_steps"] == pytest.approx(0.001 / 1.001)
    assert told["all_steps"] == pytest.approx(0.2)
    assert told["metric_last"] == pytest.approx(0.01 / 0.96)
    # of 1 - accuracy: at step 11 0.04 and 0.5
    assert told["validation_loss"] == pytest.approx(0.46 / 0.5)
    assert told["same_rows"] is True
    assert "jax and pytorch" in printed
    assert "2.0e-01" in printed


def test_other_rows_are_told(tmp_path, compare, ended):
    ended(tmp_path)
    ended(tmp_path, framework="pytorch", flags={"data_fingerprint": "f2"})
    found, printed = compare("--frameworks", "jax,pytorch")
    assert found["agreement"][0]["same_rows"] is False
    assert "jax and pytorch (other data)" in printed
    assert "not all rows were trained on the same data" in printed


def test_relative_differences():
    assert agreement.relative_difference(1.0, -1.0) == 2.0
    assert (
        agreement.relative_difference(4.0, 3.0) == agreement.relative_difference(3.0, 4.0) == 0.25
    )
    assert agreement.relative_difference(0.0, 0.0) == 0.0
    assert agreement.relative_difference(math.nan, 1.0) == math.inf
    assert agreement.relative_differences({0: 1.0, 5: 2.0}, {5: 1.0, 9: 1.0}) == {5: 0.5}


def test_a_trial_that_failed_counts_by_its_curve_alone(tmp_path, compare, ended):
    ended(tmp_path, status="failed", error={"cause": "ValueError: no", "traceback": ""})
    ended(tmp_path, framework="pytorch", status="diverged", values=(0.1, 0.2, 0.3, math.nan))
    found, printed = compare("--frameworks", "jax,pytorch")
    failed, diverged = (medians(row) for row in found["rows"])
    assert (failed["steps_to_target"], failed["best"], failed["metric"]) == (21, 0.975, None)
    assert failed["total_s"] is None
    assert (diverged["best"], diverged["metric"]) == (0.3, None)
    assert found["agreement"] == []
    assert "note: jax trial 1 failed (ValueError: no); run again, it is retried" in printed
    assert "note: pytorch trial 1: diverged at step 31" in printed


def test_energy_is_called_an_estimate_where_it_is_one(tmp_path, compare, ended):
    carbon = {"energy_kwh": 0.002, "estimated_kwh": 0.002, "is_estimate": True, "co2_kg": 0.001}
    carbon |= {"sensors": {"cpu": "estimate: by load"}, "grid_g_per_kwh": 500.0}
    carbon |= {"country": "world average", "measured_s": 3.0}
    ended(tmp_path, resources={"carbon": carbon})
    ended(tmp_path, framework="pytorch")
    found, printed = compare("--frameworks", "jax,pytorch")
    assert [medians(row)["energy_kwh"] for row in found["rows"]] == [0.002, None]
    assert "estimated energy Wh" in printed
    assert "estimated CO2 g" in printed
    assert "note: jax: energy: 0.002 kWh (an estimate, no sensor was read" in printed


def test_json_is_what_is_written(tmp_path, capsys, undrawn, ended):
    ended(tmp_path)
    words = [*COMPARE, "--out", str(tmp_path), "--frameworks", "jax,pytorch", "--json"]
    assert commands.main(words) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed == json.loads((tmp_path / "compare.json").read_text())
    assert printed["target"] == 0.97
    assert printed["missing"] == ["pytorch trial 1"]


def test_nothing_to_show_yet(tmp_path, compare):
    found, printed = compare("--frameworks", "jax,pytorch")
    assert found["missing"] == ["jax trial 1", "pytorch trial 1"]
    assert "no run has ended" in printed
    assert not list(tmp_path.glob("*.png"))


def test_pictures(tmp_path, asked, ended):
    ended(tmp_path, experiment="mini-builtin-batch-16")
    ended(tmp_path, framework="pytorch", later_s=90.0, experiment="mini-builtin-batch-16")
    ended(tmp_path, trial=2, later_s=2.0, experiment="mini-builtin-batch-16", values=MISSES)
    ended(tmp_path, experiment="mini-builtin-batch-32", losses=())
    words = "--frameworks", "jax,pytorch", "--batch-sizes", "16,32", "--trials", "2"
    written = plots.write(document.make(asked(tmp_path, *words)), tmp_path)
    names = {f"{stem}.{kind}" for stem in ("quality_cost", "curves") for kind in ("png", "svg")}
    assert {path.name for path in written} == names
    assert all(path.parent == tmp_path and path.stat().st_size > 1000 for path in written)
    text = (tmp_path / "quality_cost.svg").read_text()
    for label in ("batch 16 jax", "batch 32 pytorch (no run yet)", "target 0.97", "a processor"):
        assert label in text
    assert "relative difference of training loss" in (tmp_path / "curves.svg").read_text()


def test_points_are_medians_and_bars_ranges(tmp_path, asked, ended):
    ended(tmp_path)
    ended(tmp_path, trial=2, later_s=2.0, values=MISSES)
    ended(tmp_path, framework="pytorch", later_s=90.0)
    found = document.make(asked(tmp_path, "--frameworks", "jax,pytorch", "--trials", "2"))
    with plots.style.context():
        time, memory = plots.quality_cost(found).axes
    (point, _, bars) = time.containers[0].lines
    assert point.get_xydata().tolist() == [[pytest.approx(4.8), pytest.approx(0.955)]]
    assert bars[0].get_segments()[0].tolist() == [
        [pytest.approx(3.8), pytest.approx(0.955)],
        [pytest.approx(5.8), pytest.approx(0.955)],
    ]
    assert time.get_xscale() == "log"  # 3.8 to 93.8 s
    assert memory.get_xlim()[0] == 0.0
    assert memory.containers[0].lines[0].get_xdata() == [3.0]


def test_a_curve_of_one_point_is_seen(tmp_path, asked, ended):
    ended(tmp_path, losses=(2.0,))
    ended(tmp_path, framework="pytorch")
    with plots.style.context():
        figure = plots.curves(document.make(asked(tmp_path, "--frameworks", "jax,pytorch")))
    point, line = figure.axes[0].lines
    assert (point.get_marker(), line.get_marker()) == ("o", "none")
    assert line.get_xydata().tolist() == [[0.0, 2.0], [10.0, 1.0], [20.0, 0.5]]


RATES = "--learning-rates", "0.01,0.1,1.0", "--submissions", "adamw,muon", "--trials", "3"
LOW = (0.1, 0.2, 0.3, 0.4)


@pytest.fixture
def rated(tmp_path, asked, ended):
    """Two submissions at three rates: adamw's best is 0.1, muon's is 0.01; muon's runs at 1.0
    have all diverged, and one of adamw's. At 0.01 one of three of adamw's reaches the target, and
    two of muon's.
    """

    def write(submission, rate, trial, values, status="complete"):
        space = {"learning_rate": {"feasible_points": [rate]}}
        ended(
            tmp_path,
            submission=submission,
            trial=trial,
            experiment=f"mini-builtin-rate-{rate:g}",
            values=values,
            status=status,
            later_s=float(trial),
            flags={"search_space": search_space.parse(space, "").digest},
        )

    for trial in (1, 2, 3):
        write("adamw", 0.01, trial, REACHES if trial == 1 else LOW)
        write("adamw", 0.1, trial, REACHES)
        write("muon", 0.01, trial, LOW if trial == 3 else REACHES)
        write("muon", 0.1, trial, LOW)
        write("muon", 1.0, trial, (0.1, math.nan, math.nan, math.nan), "diverged")
    write("adamw", 1.0, 1, MISSES)
    write("adamw", 1.0, 2, (0.1, 0.2, math.nan, math.nan), "diverged")
    return document.make(asked(tmp_path, *RATES))


def test_rows_of_submissions_and_rates(rated, tmp_path):
    assert [list(row.arm.setting.values()) for row in rated.rows] == [
        *([name, rate] for name in ("adamw", "muon") for rate in (0.01, 0.1, 1.0))
    ]
    assert [row.reached for row in rated.rows] == [1, 3, 0, 2, 0, 0]
    assert rated.missing == ["adamw rate 1 jax trial 3"]
    columns, values = document.cells(rated)
    first = dict(zip(columns, values[0], strict=True))
    assert (first["submission"], first["learning_rate"], first["technique"]) == (
        *("adamw", 0.01, None),
    )
    assert (first["metric"], first["metric_high"], first["steps_to_target"]) == (
        *(0.4, 0.95, math.inf),
    )
    found = document.to_json(rated, "algoperf compare")
    assert found["submissions"] == ["adamw", "muon"]
    assert (found["rows"][4]["submission"], found["rows"][4]["learning_rate"]) == ("muon", 0.1)
    headings = [column.header for column in next(tables.tables(rated)).columns]
    assert headings[:4] == ["submission", "learning rate", "framework", "accuracy"]
    assert "learning rate: the hyperparameter learning_rate; all" in tables.legend(rated)[3]


def test_the_best_rate_of_each_submission(rated):
    """Of the last accuracies, 0.95 is the median of adamw at 0.1 and of muon at 0.01. At 1.0 the
    last of adamw's two is 0.96 in one and none in the other, which counts as worst.
    """
    best = document.at_best_rates(rated)
    assert [list(row.arm.setting.values()) for row in best.rows] == [["adamw", 0.1], ["muon", 0.01]]
    one = document.dataclasses.replace(rated, rows=rated.rows[:3])
    assert document.at_best_rates(one) is one


def test_bands_over_seeds():
    """At each step of those that are there and finite: the median, the least and the most."""
    curves = (
        {1: (1.0, 3.0), 2: (2.0, 5.0)},
        {1: (1.5, 1.0), 2: (9.0, math.nan)},
        {1: (4.0, 2.0), 2: (3.0, 9.0), 3: (5.0, 4.0)},
    )
    assert [column.tolist() for column in plots.band(curves)] == [
        [1.5, 2.5, 5.0],
        [2.0, 7.0, 4.0],
        [1.0, 5.0, 4.0],
        [3.0, 9.0, 4.0],
    ]


def test_a_row_of_several_seeds_is_a_line_with_a_band(tmp_path, asked, ended):
    for trial, values in enumerate((REACHES, MISSES, LOW), 1):
        ended(tmp_path, trial=trial, values=values, later_s=float(trial))
    ended(tmp_path, framework="pytorch", values=(0.1, 0.3, math.nan, math.nan), status="diverged")
    found = document.make(asked(tmp_path, "--frameworks", "jax,pytorch", "--trials", "3"))
    with plots.style.context():
        figure = plots.curves(found)
    by_time = figure.axes[2]
    line, single, end = by_time.lines[:3]
    assert line.get_xdata().tolist() == [4.0, 4.5, 5.5, 5.8]  # of the second of three
    assert line.get_ydata().tolist() == [0.1, 0.5, 0.965, 0.95]
    (band,) = by_time.collections
    edges = {tuple(point) for point in band.get_paths()[0].vertices.round(3).tolist()}
    assert {(4.5, 0.2), (4.5, 0.96), (5.8, 0.4), (5.8, 0.96)} <= edges
    assert single.get_xydata().tolist() == [[2.0, 0.1], [2.5, 0.3]]
    assert (end.get_marker(), end.get_xydata().tolist()) == ("x", [[2.5, 0.3]])
    assert "bands reach from least to most" in figure.texts[-1].get_text() + str(
        figure._supxlabel.get_text()
    )


def test_the_plot_of_learning_rates(rated, tmp_path):
    with plots.style.context():
        figure = plots.learning_rates(rated)
    last, _, steps, time = figure.axes
    assert [axes.get_xscale() for axes in figure.axes] == ["log"] * 4
    assert last.get_xticks().tolist() == [0.01, 0.1, 1.0]
    adamw, muon = (container.lines[0] for container in last.containers)
    assert adamw.get_xydata().tolist() == [[0.01, 0.4], [0.1, 0.95], [1.0, 0.96]]
    assert muon.get_xydata().tolist() == [[0.01, 0.95], [0.1, 0.4]]
    bar = last.containers[0].lines[2][0].get_segments()[0].tolist()
    assert bar == [[0.01, pytest.approx(0.4)], [0.01, pytest.approx(0.95)]]
    crosses = [line for line in last.lines if line.get_marker() == "x"]
    assert [list(line.get_xdata()) for line in crosses] == [[1.0], [1.0]]
    adamw, muon = (container.lines[0] for container in steps.containers)
    assert adamw.get_xydata().tolist() == [[0.1, 21.0]]
    assert muon.get_xydata().tolist() == [[0.01, 21.0]]
    missed = [list(line.get_xdata()) for line in time.lines if line.get_marker() == "^"]
    assert missed == [[0.01, 1.0], [0.1, 1.0]]
    written = {path.name for path in plots.write(rated, tmp_path)}
    assert {"curves.png", "quality_cost.png", "learning_rates.png"} <= written
    text = (tmp_path / "curves.svg").read_text()
    assert "adamw rate 0.1 jax" in text
    assert "muon rate 0.1 jax" not in text
    assert "each submission at the learning rate with its best last value" in text


def test_panels_without_marks_have_their_room(tmp_path, asked, ended):
    """Artists that are not clipped and have no points took all the room of the panels."""
    for rate in (0.01, 0.1):
        digest = search_space.parse({"learning_rate": {"feasible_points": [rate]}}, "").digest
        flags = {"search_space": digest}
        ended(tmp_path, experiment=f"mini-builtin-rate-{rate}", flags=flags)
    found = document.make(asked(tmp_path, "--learning-rates", "0.01,0.1"))
    with plots.style.context():
        figure = plots.learning_rates(found)
        plots.style.save(figure, tmp_path / "plot")
    assert all(axes.get_position().height > 0.3 for axes in figure.axes)


def test_looks_of_many_rows_differ(tmp_path, asked):
    words = "--submissions", "adamw,muon,lion,lamb,sam,soap,mars,adopt,nadamw"
    found = document.make(asked(tmp_path, *words, "--frameworks", "jax,pytorch"))
    looks = [(look["color"], str(look["linestyle"])) for look in plots.looks(found)]
    assert len(set(looks)) == 18
    found = document.make(asked(tmp_path, "--learning-rates", "1,0.1,0.01"))
    red_green_blue = [look["color"][:3].sum() for look in plots.looks(found)]
    assert red_green_blue == sorted(red_green_blue, reverse=True)


def test_a_loss_that_explodes_leaves_the_others_in_sight(tmp_path, asked, ended):
    ended(tmp_path, losses=[2.0, 1.0, 0.5, *[0.4] * 30])
    ended(tmp_path, framework="pytorch", losses=(2.0, 1e30), status="diverged")
    found = document.make(asked(tmp_path, "--frameworks", "jax,pytorch"))
    with plots.style.context():
        figure = plots.curves(found)
    # Of the 35 losses 31 are at most 0.5, and 32 at most 1.
    low, high = figure.axes[0].get_ylim()
    assert low < 0.4
    assert high == pytest.approx(1.3 * 0.5)


def test_rates_that_are_close_or_far_apart_have_few_labels(tmp_path, asked):
    for rates in ("1e-4,1e-3,1e-2,1e10", "1e-3,1.1e-3,1.2e-3,1.3e-3,1.4e-3,1e-2"):
        found = document.make(asked(tmp_path, "--learning-rates", rates))
        with plots.style.context():
            figure = plots.learning_rates(found)
            figure.canvas.draw()
        labels = [each.get_text() for each in figure.axes[0].get_xticklabels()]
        assert len(labels) <= 8
        assert not any("$" in label for label in labels)
