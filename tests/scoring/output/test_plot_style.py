"""Names and numbers that nobody has checked cannot keep a plot from being drawn."""

import re

import pytest

from scoring.output import plot_style as style
from scoring.output import plots
from scoring.output.plot_curves import plot_curves
from scoring.output.plot_profile import plot_profile
from scoring.output.plot_submissions import plot_ranks, plot_speedups

HOSTILE = [
    "$x^2$", "$\\frac{$", "a" * 200, "W" * 200, "中文 \U0001f600", "\x1b[31m\x07tab\tline\n",
    "\u202eevil", "<b>&\"'", "\udcff\udc80", "e" + 90 * "\u0301", "_hidden", "%s {x}",
    "مرحبا", "हि",
]  # fmt: skip


@pytest.fixture(autouse=True)
def settings():
    with style.context():
        yield


def test_hostile_names(tmp_path, make_trial, analysis):
    metric = {"metric": "$" + "m" * 300, "higher_is_better": True, "validation": 0.9}
    for index, name in enumerate(HOSTILE):
        rows = [(1, 1, 0.5), (10 + index, 2, 0.95)]
        for workload in ("$\\alpha$" + "w" * 200, "日本\n語"):
            for study in (0, 1):
                make_trial(rows, submission=name, workload=workload, study=study, target=metric,
                           pool={"scale": "$_{" + 300 * "X", "data": "中"})  # fmt: skip
    made = analysis()
    paths = plots.write_plots(made, tmp_path, "x")
    assert all(path.stat().st_size > 3000 for path in paths)
    for path in paths[1::2]:
        text = path.read_text(encoding="utf-8")
        for words in ("$x^2$", "$\\frac{$", "\\u4e2d\\u6587", "\\u202eevil", "_hidden", "\\udcff"):
            assert words in text, path
    (axes,) = plot_ranks(made).axes
    labels = [label.get_text() for label in axes.get_yticklabels()]
    assert len(set(labels)) == len(HOSTILE)
    assert max(map(style.inches, labels)) <= style.WIDEST_IN


def test_long_names_leave_the_plots_their_room(make_trial, analysis):
    for name in ("a" * 200, "W" * 200):
        for study in (0, 1):
            make_trial([(5, 2, 0.95)], submission=name, workload="w" * 200, study=study)
    made = analysis()
    for plot in (plot_profile, plot_ranks, plot_speedups, lambda made: plot_curves(made.board)):
        figure = plot(made)
        figure.draw_without_rendering()
        box, whole = figure.axes[0].get_position(), figure.get_tightbbox()
        assert box.width * figure.get_figwidth() > 2.4, plot
        assert box.height * figure.get_figheight() > 0.4, plot
        assert (whole.x0, whole.y0) > (-0.01, -0.01), plot
        assert whole.x1 < figure.get_figwidth() + 0.01, plot
        assert whole.y1 < figure.get_figheight() + 0.01, plot


def test_numbers_beyond_any_axis(tmp_path, make_trial, analysis):
    harsh = [(-5, 1, 1e308), (1e-320, 2, -1e308), (1e300, 3, 0.95), ("inf", 4, 0.99)]
    for study in (0, 1):
        make_trial(harsh, submission="a", study=study, budget_s=None)
        make_trial([(5, 1, 0.95)], submission="b", study=study, budget_s=None)
        for submission in "ab":
            target = {"metric": "loss", "higher_is_better": True, "validation": 9e299}
            make_trial(harsh, submission=submission, study=study, workload="lm", target=target)
    assert len(plots.write_plots(analysis(), tmp_path, "x")) == 8


def test_plain():
    assert style.plain("adamw_v2 (jax)") == "adamw_v2 (jax)"
    assert style.plain("a\tb\u0301\U00012000") == "a\\tb\\u0301\\U00012000"
    assert style.plain("e\u0301") == "é"
    cut = style.plain("head-" + "x" * 1000 + "-tail", 1.0)
    assert re.fullmatch(r"head-x+…x*-?tail", cut)
    assert 0.85 < style.inches(cut) <= 1.0
    assert style.inches("x" * 10, 20) == pytest.approx(2 * style.inches("x" * 10), rel=0.05)


def test_every_character_of_the_font_can_be_drawn(tmp_path):
    figure = style.new_figure(8, 60)
    points = [point for point in range(0x110000) if style._drawable(chr(point))]
    assert len(points) > 4000
    for start in range(0, len(points), 50):
        figure.text(0, start / len(points), "".join(map(chr, points[start : start + 50])))
    figure.savefig(tmp_path / "all.png", dpi=20)
