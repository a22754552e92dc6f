"""The plots: files, profiles and curves. Names that nobody has checked: test_plot_style.py."""

import dataclasses
import sys
from types import SimpleNamespace

import matplotlib as mpl
import numpy as np
import pytest
from matplotlib.collections import LineCollection
from matplotlib.colors import to_hex

from scoring.analysis.analysis import BAND_TAUS, analyse, summarise
from scoring.output import plot_style as style
from scoring.output import plots
from scoring.output.palette import COLOURS
from scoring.output.plot_curves import limits, plot_curves
from scoring.output.plot_profile import dodge, plot_profile
from scoring.reading.trials import Target

NO_TARGET = {"metric": "accuracy", "higher_is_better": True, "validation": None}
KINDS = ("performance_profile", "rank_intervals", "speedups", "training_curves")


@pytest.fixture(autouse=True)
def settings():
    with style.context():
        yield


def small_print(figure):
    return figure._supxlabel.get_text()


# Files


def test_files(tmp_path, competition, analysis, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.pyplot", None)  # importing it would raise
    made = analysis()
    paths = plots.write_plots(made, tmp_path, "x")
    assert sorted(path.name for path in paths) == [
        f"{kind}_x.{suffix}" for kind in KINDS for suffix in ("png", "svg")
    ]
    assert sorted(paths) == sorted(tmp_path.glob("*.*g"))
    assert all(path.stat().st_size > 3000 for path in paths)
    text = {kind: (tmp_path / f"{kind}_x.svg").read_text() for kind in KINDS}
    for words in ("mini-builtin, 2 workloads", "share of workloads within", "b  0.833", "(ratio)"):
        assert words in text["performance_profile"]
    for words in ("submission time (s)", "target: accuracy ≥ 0.9", "target: loss ≤ 0.5", "digits"):
        assert words in text["training_curves"]
    assert "probability of" in text["rank_intervals"]
    assert "geometric mean" in text["speedups"]


def test_equal_input_gives_equal_files_whatever_the_users_settings(tmp_path, competition, analysis):
    made = analysis()
    (tmp_path / "again").mkdir()
    first = plots.write_plots(made, tmp_path, "x")
    with mpl.rc_context({"font.size": 31, "axes.facecolor": "red", "text.parse_math": True}):
        before = dict.copy(mpl.rcParams)
        again = plots.write_plots(made, tmp_path / "again", "x")
        assert before == dict.copy(mpl.rcParams)
    assert [path.read_bytes() for path in first] == [path.read_bytes() for path in again]


def test_curves_are_all_where_no_workload_is_scored(tmp_path, competition, make_trial, boards):
    make_trial([(1.0, 1, 0.5), (2.0, 2, 0.6)], workload="ag_news", target=NO_TARGET, experiment="e",
               pool={"scale": "full"})  # fmt: skip
    unscored = boards()[0]["full"]
    assert not unscored.targets
    made = analyse(summarise(unscored, resamples=20), resamples=20)
    paths = plots.write_plots(made, tmp_path, "x")
    assert [path.name for path in paths] == ["training_curves_x.png", "training_curves_x.svg"]
    assert paths == plots.write_curves(unscored, tmp_path, "x")
    assert "accuracy, no target" in paths[1].read_text()
    axes = plot_curves(unscored).axes[0]
    assert [len(lines.get_segments()) for lines in axes.collections] == [1]
    assert len(axes.lines) == 0  # neither a target nor a mark


def test_no_curves_where_no_metric_is_named(tmp_path, make_trial, boards):
    folder = make_trial([(1.0, 1, 0.5)])
    (folder / "flags_0.json").unlink()
    (folder / "result.json").unlink()
    (board,) = boards()[0].values()
    assert plots.write_curves(board, tmp_path, "x") == []


def test_file_slugs_are_all_different():
    names = [
        "Mini, a=1",
        "mini a 1",
        "mini a 1 1",
        "mini-a-1",
        "中文",
        "$",
        "A" * 70,
        "a" * 59 + "-b",
    ]
    boards = [SimpleNamespace(pool=SimpleNamespace(name=name)) for name in names]
    slugs = plots.file_slugs(boards)
    assert slugs == [
        "mini-a-1", "mini-a-1-1", "mini-a-1-1-1", "mini-a-1-2", "pool", "pool-1", "a" * 60, "a" * 59
    ]  # fmt: skip


# Performance profiles


def test_coinciding_profiles_get_lanes_of_their_own():
    # 0 and 1 coincide, 2 never meets them; 3 coincides with 2 only.
    shares = np.array([[0.5, 1, 1], [0.5, 0.5, 0.5], [0, 0, 0], [0, 0, 1]])
    assert dodge(shares) == [0, 1, 0, 1]


def test_profile(competition, analysis):
    made = analysis()
    band = np.zeros((len(BAND_TAUS), 3, 2))
    band[:, 0, 0], band[:, 0, 1] = 0.25, 0.75
    band[:, 2] = np.nan
    figure = plot_profile(dataclasses.replace(made, band_TS2=band))
    (axes,) = figure.axes
    (legend,) = figure.legends
    assert [t.get_text() for t in legend.get_texts()] == ["b  0.833", "a  0.500", "c  0.458"]
    assert [to_hex(line.get_color()).upper() for line in axes.lines] == list(COLOURS[:3])
    # Ratios: b 2 (digits), 1 (lm); a 1; c 1.25 (lm).
    for line, shares in zip(
        axes.lines, ([0.5, 0.5, 1, 1], [0.5] * 4, [0, 0.5, 0.5, 0.5]), strict=True
    ):
        assert line.get_xdata().tolist() == [1, 1.25, 2, 4]
        assert line.get_ydata().tolist() == shares
    bands = [area.get_paths()[0].vertices for area in axes.collections]
    assert len(bands) == 2  # c's is not known
    assert (bands[0].min(axis=0).tolist(), bands[0].max(axis=0).tolist()) == ([1, 0.25], [4, 0.75])
    assert small_print(figure) == (
        "Bands: at each τ, where the profile lies in 95 % of fresh competitions with 2 studies.\n"
        "Coinciding lines are drawn side by side."
    )


def test_lines_that_do_not_coincide_are_where_they_belong(reach, analysis):
    for study in (0, 1):
        reach(10.0, submission="a", study=study)
        reach(20.0, submission="b", study=study)
    figure = plot_profile(analysis())
    figure.draw_without_rendering()
    # a has 1 all along, b has 0 up to 2 and 1 from there: they coincide over the last stretch.
    assert "Coinciding" in small_print(figure)
    (axes,) = figure.axes
    heights = [line.get_transform().transform((4, 1))[1] for line in axes.lines]
    true_height = axes.transData.transform((4, 1))[1]
    # Side by side, in points: 1.2 lines of 2 points apart, around the true height.
    apart = np.array(heights) - true_height
    assert apart * 72 / figure.dpi == pytest.approx([1.2, -1.2])


def test_no_bands_from_one_study(reach, analysis):
    reach(10.0, submission="$a$")
    figure = plot_profile(analysis())
    assert not figure.axes[0].collections
    assert small_print(figure) == "No bands: digits has 1 study; 2 are needed."


# Training curves


def curves_of(axes):
    """Colour, width -> segments of an axes' curves, and its marks by colour."""
    lines = {
        (
            to_hex(lines.get_color()[0]).upper(),
            float(lines.get_linewidth()[0]),
        ): lines.get_segments()
        for lines in axes.collections
        if isinstance(lines, LineCollection)
    }
    marks = {
        to_hex(line.get_color()).upper(): line.get_xydata().tolist()
        for line in axes.lines
        if line.get_marker() == "o"
    }
    return lines, marks


def test_the_trial_that_counts_is_thick_and_marked(competition, analysis):
    digits, lm = plot_curves(analysis().board).axes
    assert digits.get_title(loc="left") == "digits\ntarget: accuracy ≥ 0.9"
    assert (digits.get_xlabel(), lm.get_xlabel()) == ("submission time (s)",) * 2
    lines, marks = curves_of(digits)
    of_b, of_a, of_c = COLOURS[:3]
    thin, thick = 0.5, 1.4
    assert {key: [curve[-1, 0] for curve in curves] for key, curves in lines.items()} == {
        (of_a, thick): [10, 14],
        (of_a, thin): [12, 16],
        (of_b, thick): [24, 24],
        (of_b, thin): [2, 2],
        (of_c, thick): [12],
        (of_c, thin): [2],
    }
    assert lines[of_a, thick][0].tolist() == [[5, 0.5], [10, 0.9]]
    assert marks == {
        of_a: [[10, 0.9], [14, 0.9]],
        of_b: [[24, 0.9], [24, 0.9]],
        of_c: [[12, 0.9]],
    }
    lines, marks = curves_of(lm)
    assert [curve[-1, 0] for curve in lines[of_a, thick]] == [60]  # 100.5 is over the budget
    assert [curve[-1, 0] for curve in lines[of_a, thin]] == [100.5]
    assert marks[of_a] == [[60, 0.5]]
    (target,) = [line for line in lm.lines if line.get_marker() != "o"]
    assert list(target.get_ydata()) == [0.5, 0.5]
    assert lm.get_xlim() == pytest.approx((0, 1.02 * 100.5))


def test_evaluations_without_the_metric_do_not_break_a_curve(make_trial, analysis):
    make_trial([(1, 1, 0.25), (2, 2, ""), (3, 3, "nan"), (4, 4, 0.5), (5, 5, "inf")])
    (axes,) = plot_curves(analysis().board).axes
    ((curve,),) = (lines.get_segments() for lines in axes.collections)
    assert curve.tolist() == [[1, 0.25], [4, 0.5]]


@pytest.mark.parametrize(
    ("count", "grid"), [(1, (1, 1)), (2, (1, 2)), (8, (3, 3)), (9, (3, 3)), (14, (4, 4))]
)
def test_panels(count, grid, make_trial, boards):
    for place in range(count):
        make_trial([(1.0, 1, 0.5)], workload=f"w{place:02}", target=NO_TARGET)
    make_trial([(1.0, 1, 0.5)], workload="w00", target=NO_TARGET, submission="other")
    (board,) = boards()[0].values()
    figure = plot_curves(board)
    assert figure.axes[0].get_gridspec().get_geometry() == grid
    titles = [axes.get_title(loc="left").split("\n")[0] for axes in figure.axes if axes.axison]
    assert titles == [f"w{place:02}" for place in range(count)]
    assert figure.get_figwidth() <= 13.2


def test_limits():
    up = Target("accuracy", True, 0.8)
    down = Target("loss", False, 1.0)
    # Gaps to the best value, 0.7: the target is 0.1 away, nine tenths of the values are within 0.4.
    values = np.array([0.0, 0.4, 0.5, 0.5, 0.6, 0.6, 0.6, 0.6, 0.7, 0.7, 0.7])
    assert limits([values], up) == pytest.approx((0.4 - 0.06 * 0.4, 0.8 + 0.06 * 0.4))
    # Three quarters lie within 0.25 of the best, 1: the limit is 3 times as far, 0.75 above it.
    values = np.array([9.0, 9.0, 1.25, 1.25, 1.0, 1.0, 1.0, 1.0, 1.0])
    assert limits([values], down) == pytest.approx((1 - 0.045, 1.75 + 0.045))
    assert limits([], down) == (0.5, 1.5)
    assert limits([], Target("loss", False, None)) == (0.0, 1.0)
    assert limits([np.array([0.0])], Target("loss", False, None)) == (-0.5, 0.5)


# One of a kind


def test_one_submission_in_one_study(tmp_path, reach, analysis):
    reach(10.0)
    paths = plots.write_plots(analysis(), tmp_path, "x")
    assert len(paths) == 8
    assert all(path.stat().st_size > 3000 for path in paths)


def test_damaged_and_empty_trials(tmp_path, make_trial, analysis):
    folder = make_trial([(1.0, 1, "nan"), (2.0, 2, "inf")])
    (folder.parent / "trial_2").mkdir()
    (folder.parent / "trial_2" / "flags_0.json").write_text((folder / "flags_0.json").read_text())
    assert len(plots.write_plots(analysis(), tmp_path, "x")) == 8
