"""The site's page of the board: made of docs/leaderboard/board.tar.xz, and as it was without it."""

import csv
import importlib.util
import itertools
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from algoperf.run_folder import archive, run_log
from scoring.report import Options, score

DOCS = Path(__file__).resolve().parents[1] / "docs"
TARGET = {"metric": "accuracy", "higher_is_better": True, "validation": 0.9, "test": None}
# Seconds to the target of each submission; in JAX b was not run, and all take twice as long.
TIMES_S = {"ag_news": (10, 20, 30), "lm": (20, 10, 25), "mlm": (10, 15, 40), "xsum": (10, 20, 25)}


def write_board(root):
    """A small board, packed as docs/leaderboard/board.tar.xz below a folder."""
    runs = root / "runs"
    for (workload, times_s), study in itertools.product(TIMES_S.items(), range(3)):
        for framework, (name, time_s) in itertools.product(
            ("pytorch", "jax"), zip(("a", "b_<x>", "c"), times_s, strict=True)
        ):
            if framework == "jax" and name.startswith("b"):
                continue
            folder = run_log.trial_folder(runs, "board", name, study, workload, framework, 1)
            folder.mkdir(parents=True)
            end_s = time_s * (2 if framework == "jax" else 1) * (1 + study / 50)
            flags = {"target": TARGET, "budget_s": 200.0, "pool": {"scale": "mini"}}
            run_log.write_json(folder / "flags_0.json", flags | {"max_steps": None})
            ledger = {"submission_s": end_s, "wall_s": 2 * end_s}
            result = {"status": "reached", "scoreable": True, "ledger": ledger}
            run_log.write_json(folder / "result.json", result)
            run_log.write_json(folder / "hparams.json", {})
            (folder / "eval_measurements.csv").write_text(
                "accumulated_submission_time,global_step,validation/accuracy\n"
                f"{end_s / 2},50,0.5\n{end_s},100,0.9\n"
            )
    file = root / "docs" / "leaderboard" / "board.tar.xz"
    file.parent.mkdir(parents=True)
    archive.pack([runs], file)
    return file


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """A project with a site of one page and the hook, and a small board."""
    root = tmp_path_factory.mktemp("project")
    write_board(root)
    shutil.copyfile(DOCS / "board_hook.py", root / "docs" / "board_hook.py")
    (root / "docs" / "leaderboard.md").write_text("# Board\n\n<!-- the board -->\n\nThe end.\n")
    (root / "docs" / "index.md").write_text("# Home\n")
    settings = {
        "site_name": "test",
        "hooks": ["docs/board_hook.py"],
        "exclude_docs": "board_hook.py",
        "strict": True,
        "plugins": [],
        "markdown_extensions": ["tables"],
        "theme": {"name": "mkdocs", "highlightjs": False},
        "validation": {"links": {"not_found": "warn"}},
    }
    (root / "mkdocs.yml").write_text(json.dumps(settings))  # JSON is YAML
    return root


@pytest.fixture(scope="module")
def site(project):
    if importlib.util.find_spec("mkdocs") is None:
        pytest.skip("the site is built with mkdocs, of the extra docs")
    return built(project)


def built(project):
    code = "import sys; from mkdocs.__main__ import cli; cli()"
    subprocess.run(
        [sys.executable, "-c", code, "build", "--strict", "--quiet", "--clean"],
        cwd=project, check=True,
    )  # fmt: skip
    return project / "site"


def test_the_page_has_the_tables_of_the_file(site, project):
    page = (site / "leaderboard" / "index.html").read_text()
    assert "<!-- the board -->" not in page
    headings = re.findall(r"<h2[^>]*>([^<]*)", page)
    assert headings == ["PyTorch", "JAX", "Both frameworks together"]
    assert "The end." in page
    for framework in ("pytorch", "jax", None):
        file = project / "docs" / "leaderboard" / "board.tar.xz"
        (summary,) = score([file], Options(framework=framework)).summaries
        row = summary.board.rows[0]
        low, high = summary.studies.score_interval[0].tolist()
        cell = f"{row.score:.4f} ({low:.3f} to {high:.3f})"
        assert f"<td>{cell}</td>" in page
    # By hand, PyTorch alone: a is first but for lm, where b is: (1 + 2/3 + 1 + 1) / 4 of a's.
    assert "<td>0.9167 (" in page
    assert "b_&lt;x&gt;" in page.replace("&#95;", "_")
    assert "<x>" not in page
    # Twice the seconds of three studies (1 + 1.02 + 1.04); in JAX a's and c's, twice as long.
    all_s, of_b_s = (sum(map(sum, TIMES_S.values())), sum(each[1] for each in TIMES_S.values()))
    pytorch_s, jax_s = all_s * 3.06 * 2, (all_s - of_b_s) * 3.06 * 4
    told = re.findall(r"Cost: ([0-9.]+) core-hours in ([0-9]+) trials", page)
    wanted = [pytorch_s / 3600, jax_s / 3600, (pytorch_s + jax_s) / 3600]
    assert [float(hours) for hours, _ in told] == pytest.approx(wanted, abs=0.0006)
    assert [int(trials) for _, trials in told] == [36, 24, 60]


def test_each_report_is_a_part_of_the_site_and_loads_nothing(site, project):
    page = (site / "leaderboard" / "index.html").read_text()
    links = re.findall(r'(?:href|src)="([^"#:]+)"', page)
    inside = {link for link in links if "board" in link and "index" not in link}
    for link in inside:
        assert (site / "leaderboard" / link).exists(), link
    reports = {link for link in inside if link.endswith("report.html")}
    assert {link.split("/")[-2] for link in reports} == {"pytorch", "jax", "both"}
    assert any(link.endswith("board.tar.xz") for link in inside)
    for name in ("pytorch", "jax", "both"):
        folder = site / "leaderboard" / "board" / name
        report = (folder / "report.html").read_text()
        assert "algoperf score docs/leaderboard/board.tar.xz" in report
        assert str(project) not in report  # nothing says where it was built
        with (folder / "scores.csv").open(newline="") as file:
            count = len(list(csv.DictReader(file)))
        assert count == {"pytorch": 3, "jax": 2, "both": 5}[name]
    told = (site / "leaderboard" / "board" / "pytorch" / "report.html").read_text()
    for section in ("board", "profiles", "curves", "workloads", "order", "made-of", "costs"):
        assert f'id="pool-0-{section}"' in told


def test_without_a_board_the_page_is_as_it_is_written(site, project, tmp_path):
    shutil.copytree(project / "docs", tmp_path / "docs")
    (tmp_path / "docs" / "leaderboard" / "board.tar.xz").unlink()
    shutil.copyfile(project / "mkdocs.yml", tmp_path / "mkdocs.yml")
    page = (built(tmp_path) / "leaderboard" / "index.html").read_text()
    assert "The end." in page
    assert "PyTorch" not in page
    assert not (tmp_path / "site" / "leaderboard" / "board").exists()


def test_the_leaderboard_has_a_place_for_the_board():
    assert (DOCS / "leaderboard.md").read_text().count("<!-- the board -->") == 1
