"""A file of `algoperf pack` is read as the folders that it was made of."""

import json

import pytest

import algoperf
from algoperf.cli import commands
from algoperf.run_folder import archive, run_log
from scoring import frames
from scoring.reading import unpacked
from scoring.reading.runs import read_runs


@pytest.fixture
def packed(competition, tmp_path):
    for folder in (tmp_path / "runs").rglob("trial_*"):
        (folder / "measurements.csv").write_text("global_step,loss\n3,0.5\n5,0.25\n")
        meta = {"hardware": {"cpu": "Some CPU", "threads": 2}}
        run_log.write_json(folder / "meta_data_0.json", meta)
    archive.pack([tmp_path / "runs"], tmp_path / "runs.tar.xz")
    return tmp_path / "runs.tar.xz"


def scored(path, tmp_path, capsys):
    assert commands.main(["score", str(path), "--json", "--resamples", "200"]) == 0
    return json.loads(capsys.readouterr().out)


def test_scores_are_those_of_the_folders_to_the_last_digit(packed, tmp_path, capsys):
    from_folder, from_file = (
        scored(each, tmp_path, capsys) for each in (tmp_path / "runs", packed)
    )
    assert from_file["pools"] == from_folder["pools"]
    scores = [each["score"] for each in from_file["pools"][0]["submissions"]]
    assert scores == pytest.approx([5 / 6, 1 / 2, 11 / 24])  # the fixture's, by hand
    runs = str(tmp_path / "runs")
    told = [each | {"path": each["path"].replace(runs, str(packed))} for each in
            from_folder["findings"]]  # fmt: skip
    assert from_file["findings"] == told
    assert told


def test_the_page_and_all_files_are_the_same(packed, tmp_path):
    out = {}
    for path in (tmp_path / "runs", packed):
        folder = tmp_path / f"out-{path.name}"
        algoperf.score(path, resamples=200).write(folder)
        out[path] = {
            file.name: file.read_bytes().replace(str(path).encode(), b"RUNS")
            for file in folder.iterdir()
            if file.suffix != ".pdf"
        }
    assert out[tmp_path / "runs"] == out[packed]
    page = out[packed]["report.html"].decode()
    assert "Some CPU, 2 threads" in page  # read from the trials after they were
    assert "Training loss" in page


def test_paths_begin_with_the_file_s_and_frames_read_it_too(packed):
    frame = frames.load_runs(packed)
    assert len(frame) == 16
    name = "mini-builtin/a/study_0/digits_jax/trial_1"
    assert str(packed / name) in set(frame["path"])
    runs, _ = read_runs(packed)
    assert {run.submission_folder for run in runs} == {
        packed / "mini-builtin" / name for name in "abc"
    }
    assert all((run.folder / "result.json").is_file() for run in runs)


def test_a_file_is_unpacked_once_and_again_where_it_has_changed(packed, tmp_path):
    before = unpacked.folder_of(packed)
    assert unpacked.folder_of(packed) == before
    archive.pack([tmp_path / "runs" / "mini-builtin" / "a"], tmp_path / "a.tar.xz")
    (tmp_path / "a.tar.xz").replace(packed)
    assert unpacked.folder_of(packed) != before
    assert {run.submission for run in read_runs(packed)[0]} == {"a"}
