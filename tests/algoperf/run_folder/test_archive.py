"""Trials in one file: what is kept, that equal trials are equal bytes, and files of others."""

import io
import json
import lzma
import tarfile

import pytest

from algoperf.cli import commands
from algoperf.errors import UserError
from algoperf.experiments import campaign
from algoperf.machine import supervision
from algoperf.run_folder import archive, run_log

NAME = "leaderboard-external/adamw/study_0/digits_jax/trial_1"
TARGET = {"metric": "accuracy", "higher_is_better": True, "validation": 0.97}
MACHINE = {"cpu": "AMD EPYC", "threads": 1}


def write_trial(out, trial=1, study=0, submission="adamw", cpu="AMD EPYC", **result):
    """A trial that ended, as a run leaves it; `result` is more of its result."""
    folder = run_log.trial_folder(
        out, "leaderboard-external", submission, study, "digits", "jax", trial
    )
    folder.mkdir(parents=True)
    flags = {"target": TARGET, "budget_s": 15.0, "hardware": MACHINE | {"cpu": cpu}}
    flags |= {"submission_path": "/home/me/runs/mine.py", "max_steps": None}
    run_log.write_json(folder / "flags_0.json", flags)
    command = "algoperf run --out /home/me/runs --seed 0 --data=/home/me/rows"
    run_log.write_json(folder / "meta_data_0.json", {"command": command, "cpu_count": 1})
    run_log.write_json(folder / "hparams.json", {"learning_rate": 0.25})
    ended = {"status": "reached", "target": TARGET, "scoreable": True, "trial": trial}
    run_log.write_json(folder / "result.json", ended | result)
    header = "accumulated_submission_time,global_step,validation/accuracy\n"
    (folder / "eval_measurements.csv").write_text(f"{header}1.0,10,0.5\n2.125,21,0.98\n")
    (folder / "measurements.csv").write_text("global_step,loss\n10,0.5\n")
    return folder


@pytest.fixture
def runs(tmp_path):
    for trial in (1, 2):
        write_trial(tmp_path / "runs", trial)
    return tmp_path / "runs"


@pytest.fixture
def packed(runs, tmp_path):
    archive.pack([runs], tmp_path / "board.tar.xz")
    return tmp_path / "board.tar.xz"


def content(folder):
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def test_equal_trials_are_equal_bytes_wherever_they_lie(runs, packed, tmp_path):
    for name in ("checkpoint_1.npz", "predictions.jsonl", "events.out.tfevents.1", "paused.json"):
        (runs / NAME / name).write_text("not kept")
    for name in ("submission", "replaced_0", "wandb"):
        (runs / NAME / name).mkdir()
        (runs / NAME / name / "result.json").write_text("{}")
    (runs / "campaign.json").write_text("{}")
    again = tmp_path / "deeper" / "at"
    again.mkdir(parents=True)
    runs.rename(again / "another_place")
    archive.pack([tmp_path / "deeper"], tmp_path / "again.tar.xz")
    assert (tmp_path / "again.tar.xz").read_bytes() == packed.read_bytes()
    assert archive.unpack(packed, tmp_path / "unpacked") == 2
    archive.pack([tmp_path / "unpacked"], tmp_path / "third.tar.xz")
    assert (tmp_path / "third.tar.xz").read_bytes() == packed.read_bytes()
    archive.pack([tmp_path / "unpacked" / "leaderboard-external" / "adamw"], tmp_path / "4.tar.xz")
    assert (tmp_path / "4.tar.xz").read_bytes() == packed.read_bytes()
    names = ("eval_measurements.csv", "flags_0.json", "hparams.json", "measurements.csv")
    names += ("meta_data_0.json", "result.json")
    wanted = {f"{NAME[:-1]}{trial}/{name}" for trial in (1, 2) for name in names}
    assert set(content(tmp_path / "unpacked")) == wanted
    with tarfile.open(packed) as file:  # of no time and nobody's, for whoever has no algoperf
        assert {(each.mtime, each.uid, each.uname, each.mode) for each in file} == {
            (0, 0, "", 0o644)
        }


def test_files_stay_byte_by_byte_but_for_folders_loads_and_samples(tmp_path):
    load = {"lost_share": 0.75, "segments": [{"step": 1, "clock_s": 0.5}]}
    folder = write_trial(tmp_path / "runs", load=load, examples=["a text"], contended=True)
    archive.pack([tmp_path / "runs"], tmp_path / "one.tar.xz")
    archive.unpack(tmp_path / "one.tar.xz", tmp_path / "again")
    again = tmp_path / "again" / NAME
    for name in ("eval_measurements.csv", "measurements.csv", "hparams.json"):
        assert (again / name).read_bytes() == (folder / name).read_bytes()
    before, after = (run_log.read_flags(each) for each in (folder, again))
    assert after == before | {"submission_path": "mine.py"}
    meta = json.loads((again / "meta_data_0.json").read_text())
    assert meta == {"command": "algoperf run --out runs --seed 0 --data=rows", "cpu_count": 1}
    result = run_log.read_result(folder)
    assert run_log.read_result(again) == result | {"load": {"lost_share": 0.75}, "examples": []}
    assert run_log.is_contended(again)


def test_what_has_not_ended_is_left_out_and_counted(runs, tmp_path, capsys):
    write_trial(runs, 3).joinpath("result.json").unlink()
    write_trial(runs, 4).joinpath("result.json").unlink()
    write_trial(runs, 5).joinpath("result.json").write_text('{"status": "rea')
    begun = write_trial(runs, 7)
    (begun / "result.json").unlink()
    # One that has a result is run anew, or about to end.
    with supervision.locked(write_trial(runs, 6)), supervision.locked(begun):
        code = commands.main(["pack", str(runs), str(tmp_path / "board.tar.xz")])
    assert code == 0
    size = (tmp_path / "board.tar.xz").stat().st_size
    assert capsys.readouterr().out.splitlines() == [
        f"{tmp_path / 'board.tar.xz'}: 2 trials, 2 of them new, 0 replaced; {size:,} bytes",
        "left out: 2 trials interrupted or without a result",
        "left out: 1 trial with a result that is damaged",
        "left out: 2 trials running",
    ]
    assert set(archive.read(tmp_path / "board.tar.xz")) == {NAME, f"{NAME[:-1]}2"}


def test_a_trial_that_is_run_anew_while_it_is_read_is_running(runs, tmp_path, monkeypatch):
    real, folder = archive._files_of, runs / NAME

    def meanwhile(each):
        files = real(each)
        if each == folder:
            (folder / "result.json").write_text("{}")
        return files

    monkeypatch.setattr(archive, "_files_of", meanwhile)
    told = archive.pack([runs], tmp_path / "board.tar.xz")
    assert (told.trials, told.left_out) == (1, {"running": 1})


def test_a_population_counts_as_a_whole(runs, tmp_path):
    (runs / NAME).parent.joinpath("population.json").write_text("{}")
    assert archive.pack([runs], tmp_path / "all.tar.xz").trials == 2
    (runs / NAME / "result.json").unlink()
    with pytest.raises(UserError, match=r"no trial that has ended in .*runs: nothing to pack"):
        archive.pack([runs], tmp_path / "none.tar.xz")


def test_packing_again_adds_what_is_new(runs, packed, tmp_path):
    write_trial(runs, 1, study=1)
    told = archive.pack([runs], packed)
    assert (told.trials, told.added, told.replaced) == (3, 1, 0)
    other = tmp_path / "other"
    write_trial(other, 1, submission="muon", cpu="another")
    told = archive.pack([other], packed)  # what it had stays
    assert (told.trials, told.added, told.machines) == (4, 1, 2)
    whole = archive.pack([runs, other, packed], tmp_path / "whole.tar.xz")
    assert (whole.trials, whole.added) == (4, 4)
    assert (tmp_path / "whole.tar.xz").read_bytes() == packed.read_bytes()


def test_two_results_of_one_trial_are_an_error_that_names_it(runs, packed, tmp_path):
    write_trial(tmp_path / "other", 2, steps=99)
    before, name = packed.read_bytes(), f"{NAME[:-1]}2"
    for file in (packed, tmp_path / "new.tar.xz"):
        with pytest.raises(UserError, match=f"^{name}: .*runs/{name} and .*other/{name} have diff"):
            archive.pack([runs, tmp_path / "other"], file, replace=True)
    with pytest.raises(UserError, match=f"^{name}: .*board.tar.xz have different.*--replace"):
        archive.pack([tmp_path / "other"], packed)
    assert packed.read_bytes() == before
    assert not (tmp_path / "new.tar.xz").exists()
    told = archive.pack([tmp_path / "other"], packed, replace=True)
    assert (told.trials, told.added, told.replaced) == (2, 0, 1)
    assert json.loads(archive.read(packed)[name]["result.json"])["steps"] == 99


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("pack nowhere {}/b.tar.xz", "nowhere does not exist; give a folder of runs"),
        ("pack {}/empty {}/b.tar.xz", "no runs in {}/empty"),
        ("pack {}/runs {}/nowhere/b.tar.xz", "FILE {}/nowhere/b.tar.xz: there is no folder"),
        ("pack {}/runs {}/empty", "FILE {}/empty: a folder; give a file"),
        ("unpack {}/nowhere {}/x", "{}/nowhere cannot be read (No such file or directory)"),
        ("unpack {}/board.tar.xz {}/board.tar.xz", "DIR {}/board.tar.xz: a file, not a folder"),
    ],
)
def test_what_cannot_be_packed(packed, tmp_path, words, message, capsys):
    (tmp_path / "empty").mkdir()
    assert commands.main(words.replace("{}", str(tmp_path)).split()) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"algoperf: {message.replace('{}', str(tmp_path))}")
    assert error.count("\n") == 1


def archive_of(path, *members, after=b""):
    """An archive of members, each a name and a content, or a TarInfo and a content."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w", format=tarfile.GNU_FORMAT) as file:
        for member, data in members:
            facts = member if isinstance(member, tarfile.TarInfo) else tarfile.TarInfo(member)
            facts.size = facts.size or len(data)
            file.addfile(facts, io.BytesIO(data))
    path.write_bytes(lzma.compress(stream.getvalue()) + after)
    return path


def of_type(name, kind, target=""):
    facts = tarfile.TarInfo(name)
    facts.type, facts.linkname = kind, target
    return facts


RESULT = (f"{NAME}/result.json", b"{}")


@pytest.mark.parametrize(
    ("members", "why"),
    [
        ([RESULT, RESULT], f"it has '{NAME}/result.json' twice"),
        ([("../result.json", b"{}")], "outside the destination"),
        ([(f"{NAME}/../../../../../../../etc/result.json", b"{}")], "outside the destination"),
        ([("/etc/passwd", b"{}")], "'/etc/passwd' is no file of a trial"),
        ([RESULT, (f"/{NAME}/hparams.json", b"{}")], "is no file of a trial"),
        ([(f"a/../{NAME}/result.json", b"{}")], "is no file of a trial"),
        ([(NAME.replace("adamw", "..") + "/result.json", b"{}")], "is no file of a trial"),
        ([(NAME.replace("adamw", "\n") + "/result.json", b"{}")], "is no file of a trial"),
        ([(NAME.replace("study_0", "study_00") + "/result.json", b"{}")], "is no file of a trial"),
        ([(f"{NAME}/run.py", b"")], f"'{NAME}/run.py' is no file of a trial"),
        ([("result.json", b"{}")], "'result.json' is no file of a trial"),
        ([(of_type(RESULT[0], tarfile.SYMTYPE, "/etc/passwd"), b"")], "absolute path"),
        ([(of_type(RESULT[0], tarfile.SYMTYPE, "hparams.json"), b"")], "is not a plain file"),
        ([(of_type(RESULT[0], tarfile.LNKTYPE, "../x"), b"")], "outside the destination"),
        ([(of_type(RESULT[0], tarfile.CHRTYPE), b"")], "is a special file"),
        ([(of_type(NAME, tarfile.DIRTYPE), b"")], "is not a plain file"),
        ([(of_type(RESULT[0], tarfile.GNUTYPE_SPARSE), b"")], "is not a plain file"),
        ([(f"{NAME}/hparams.json", b"{}")], f"{NAME} has no result.json"),
        ([], "it has no trial"),
    ],
)
def test_an_archive_of_others_is_refused_in_one_line(tmp_path, members, why, capsys):
    file = archive_of(tmp_path / "x.tar.xz", *members)
    for words in (["unpack", str(file), str(tmp_path / "out")], ["score", str(file)]):
        assert commands.main(words) == 2
        error = capsys.readouterr().err
        assert error.startswith(f"algoperf: {file}: no file that `algoperf pack` wrote: ")
        assert why in error
        assert error.count("\n") == 1
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("damage", "why"),
    [
        (lambda data: b"", "it ends too early"),
        (lambda data: data[:-40], "it ends too early"),
        (lambda data: data + b"x", "something follows it"),
        (lambda data: b"PK\3\4" + data, "xz: Input format not supported"),
        (lambda data: data[:99] + bytes([data[99] ^ 1]) + data[100:], "xz: Corrupt input data"),
        (lambda data: lzma.compress(b"no tar" * 200), "what xz holds is no tar archive"),
    ],
)
def test_a_damaged_file_is_refused(packed, tmp_path, damage, why):
    packed.write_bytes(damage(packed.read_bytes()))
    with pytest.raises(UserError, match=f"board.tar.xz: no file that `algoperf pack` wrote: {why}"):
        archive.unpack(packed, tmp_path / "out")


def test_what_is_too_large_is_neither_read_nor_written(runs, packed, tmp_path, monkeypatch):
    # Zeros that xz makes small: a thousandth of what they are.
    large = archive_of(tmp_path / "zeros.tar.xz", (RESULT[0], bytes(300_000)))
    assert large.stat().st_size < 1000
    monkeypatch.setattr(archive, "MOST_BYTES", 200_000)
    monkeypatch.setattr(archive, "_CHUNK", 50_000)
    with pytest.raises(UserError, match="larger than 200,000 bytes"):
        archive.read(large)
    monkeypatch.setattr(archive, "MOST_FILES", 11)
    with pytest.raises(UserError, match="it has more than 11 files"):
        archive.read(packed)
    with pytest.raises(UserError, match=r"more than an archive may have .*11 files"):
        archive.pack([runs], tmp_path / "new.tar.xz")
    monkeypatch.setattr(archive, "MOST_FILES", 12)
    assert len(archive.read(packed)) == 2
    monkeypatch.setattr(archive, "MOST_MEMORY", 2**20)
    with pytest.raises(UserError, match="xz: Memory usage limit exceeded"):
        archive.read(packed)


def test_what_is_there_stays(packed, tmp_path):
    out = tmp_path / "out"
    mine = write_trial(out, 2)
    (mine / "result.json").unlink()  # as `unpack` leaves it where it is killed: the result is last
    (mine / "notes.txt").write_text("mine")
    assert archive.unpack(packed, out) == 2
    assert archive.unpack(packed, out) == 0
    assert (mine / "notes.txt").read_text() == "mine"
    run_log.write_json(mine / "hparams.json", {"learning_rate": 0.5})
    (out / NAME / "result.json").unlink()
    with pytest.raises(UserError, match="trial_2: holds another run of this trial than"):
        archive.unpack(packed, out)
    assert not (out / NAME / "result.json").exists()  # nothing is written where one differs


def test_a_trial_that_is_running_is_not_written_over(packed, tmp_path):
    archive.unpack(packed, tmp_path / "out")
    with supervision.locked(tmp_path / "out" / NAME), pytest.raises(UserError, match="trial_1"):
        archive.unpack(packed, tmp_path / "out")


def test_the_result_is_written_last(packed, tmp_path, monkeypatch):
    written = []
    real = archive.Path.write_bytes

    def write_bytes(path, data):
        written.append(path.name)
        return real(path, data)

    monkeypatch.setattr(archive.Path, "write_bytes", write_bytes)
    archive.unpack(packed, tmp_path / "out")
    assert [written[5], written[11]] == ["result.json", "result.json"]


def test_a_campaign_takes_unpacked_trials_as_ended(packed, tmp_path):
    archive.unpack(packed, tmp_path / "out")
    first, second = campaign.entries(["digits"], ["adamw"], ["jax"], "external", 2, 2)
    assert first.has_ended(tmp_path / "out")
    assert not second.has_ended(tmp_path / "out")


@pytest.mark.slow
def test_a_campaign_goes_on_from_a_file_and_runs_nothing_twice(tmp_path, capfd):
    """Trained: two trials of digits on one machine, a third where the file was unpacked."""
    words = "campaign --workload digits --submissions nadamw --frameworks pytorch --workers 1"
    words = f"{words} --tuning-ruleset external --seeds 1".split()
    begun, on = tmp_path / "begun", tmp_path / "on"
    assert commands.main([*words, "--trials", "1", "--out", str(begun)]) == 0
    archive.pack([begun], tmp_path / "board.tar.xz")
    archive.unpack(tmp_path / "board.tar.xz", on)
    before = content(on)
    capfd.readouterr()
    assert commands.main([*words, "--trials", "2", "--out", str(on)]) == 0
    after = content(on)
    ended = {name for name in after if name.endswith("result.json")}
    assert {name.split("/")[-2] for name in ended} == {"trial_1", "trial_2"}
    assert {name: after[name] for name in before} == before
    told = archive.pack([on], tmp_path / "board.tar.xz")
    assert (told.trials, told.added, told.replaced, told.machines) == (2, 1, 0, 1)
    # On a machine of another kind the study does not go on.
    for path in on.rglob("flags_0.json"):
        flags = json.loads(path.read_text())
        run_log.write_json(path, flags | {"hardware": flags["hardware"] | {"cpu": "another"}})
    capfd.readouterr()
    assert commands.main([*words, "--trials", "3", "--out", str(on)]) == 1
    assert 'holds another configuration (hardware.cpu: "another", now ' in capfd.readouterr().out
    assert len(list(on.rglob("result.json"))) == 2
