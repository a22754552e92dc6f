"""Recordings in LibriSpeech's layout, Free Spoken Digit's and tables: read, dropped and refused."""

import csv
import sys

import numpy as np
import pytest

from algoperf.data.formats import speech
from algoperf.errors import UserError
from algoperf.workload import SPLITS

soundfile = pytest.importorskip("soundfile")
RATE = 16_000
LIMITS = speech.Limits(RATE, seconds=1.0, characters=12)


def write(path, samples=400, seed=0, rate=RATE, channels=1):
    """Random samples, and what was written."""
    rng = np.random.default_rng(seed)
    shape = (samples, channels) if channels > 1 else (samples,)
    values = rng.integers(-3000, 3000, shape).astype(np.int16)
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, values, rate)
    return values


@pytest.fixture
def tree(tmp_path):
    """Two training chapters of two utterances, one of validation and one of test."""
    written = {}
    for split, speaker in (
        ("train-clean-100", 7),
        ("train-other-500", 3),
        ("dev-clean", 1),
        ("test-clean", 2),
    ):
        chapter = tmp_path / split / str(speaker) / "9"
        lines = []
        for number in range(2):
            name = f"{speaker}-9-{number:04}"
            written[name] = write(chapter / f"{name}.flac", 300 + 50 * number, seed=speaker)
            lines.append(f"{name} HELLO {speaker} {number}\n")
        (chapter / f"{speaker}-9.trans.txt").write_text("".join(lines))
    return tmp_path, written


def test_librispeech_s_splits(tree):
    path, written = tree
    found = speech.find(path, LIMITS)
    names = {split: [each.path.stem for each in rows] for split, rows in found.splits.items()}
    assert names == {
        "train": ["7-9-0000", "7-9-0001", "3-9-0000", "3-9-0001"],
        "validation": ["1-9-0000", "1-9-0001"],
        "test": ["2-9-0000", "2-9-0001"],
    }
    assert found.rate == RATE
    assert found.notes == {"dropped": {}, "bad_rows": {}, "held_out": []}
    for utterance in found.splits["train"]:
        samples = written[utterance.path.stem]
        np.testing.assert_array_equal(utterance.read(), samples)
        assert utterance.samples == len(samples)
    assert found.splits["validation"][1].transcript == "HELLO 1 1"


def test_what_is_too_long_is_dropped_and_counted(tree):
    path, _ = tree
    chapter = path / "train-clean-100" / "7" / "9"
    write(chapter / "7-9-0002.flac", RATE + 1)
    write(chapter / "7-9-0003.flac", RATE)
    with (chapter / "7-9.trans.txt").open("a") as file:
        file.write("7-9-0002 A\n7-9-0003 ABCDEFGHIJKLM\n")
    found = speech.find(path, LIMITS)
    assert found.notes["dropped"] == {"train": {"over 1 s": 1, "over 12 characters": 1}}
    assert len(found.splits["train"]) == 4


def test_spoken_digits_are_split_by_their_takes(tmp_path):
    for digit, speaker, take in (
        (3, "ann", 0),
        (0, "bo", 4),
        (1, "ann", 5),
        (9, "bo", 7),
        (7, "c", 8),
    ):
        write(tmp_path / "recordings" / f"{digit}_{speaker}_{take}.wav", rate=8000)
    found = speech.find(tmp_path, speech.Limits(None, 1.0, 12))
    texts = {split: [each.transcript for each in rows] for split, rows in found.splits.items()}
    assert texts == {"train": ["SEVEN"], "validation": ["ONE", "NINE"], "test": ["ZERO", "THREE"]}
    assert found.rate == 8000


def test_a_table_and_a_split_that_is_held_out(tmp_path):
    lines = ["path\ttranscript\tspeaker\n"]
    for number in range(20):
        write(tmp_path / "wav" / f"{number:02}.wav", seed=number)
        lines.append(f"wav/{number:02}.wav\tword {number}\tann\n")
    (tmp_path / "train.tsv").write_text("".join(lines[:19]))
    (tmp_path / "test.tsv").write_text(lines[0] + lines[19] + lines[20])
    found, again, other = (speech.find(tmp_path, LIMITS, seed) for seed in (0, 0, 1))
    assert {split: len(rows) for split, rows in found.splits.items()} == {
        "train": 16, "validation": 2, "test": 2,
    }  # fmt: skip
    assert list(found.splits) == list(SPLITS)
    assert found.notes["held_out"] == ["validation"]
    assert found.splits["test"][1].transcript == "WORD 19"
    assert found.splits == again.splits
    assert found.splits["validation"] != other.splits["validation"]
    everywhere = {each.path.name for rows in found.splits.values() for each in rows}
    assert len(everywhere) == 20


def table(folder, split, *lines):
    """A table of utterances whose files are there, and its lines below the header as given."""
    content = "".join(f"{line}\n" for line in ("path\ttranscript", *lines))
    (folder / f"{split}.tsv").write_text(content)
    for line in lines:
        name = line.partition("\t")[0]
        if name and not (folder / name).exists():
            write(folder / name)


TRAIN_LINES = tuple(f"{number:02}.wav\tA" for number in range(10))


@pytest.mark.parametrize(
    ("lines", "skips", "message"),
    [
        (("long.wav\tA", "00.wav\tABCDEFGHIJKLM"), False, "1 x over 1 s, 1 x over 12 characters"),
        (("stereo.wav\tA",), True, "1 x several channels"),
        ((), False, "it is empty"),
    ],
)
def test_a_split_of_which_nothing_is_left_is_not_made_of_training_rows(
    tmp_path, lines, skips, message
):
    table(tmp_path, "train", *TRAIN_LINES)
    write(tmp_path / "long.wav", RATE + 1)
    write(tmp_path / "stereo.wav", channels=2)
    table(tmp_path, "test", *lines)
    with pytest.raises(UserError, match=f"no utterance is left of the test split \\({message}\\)"):
        speech.find(tmp_path, LIMITS, skip_bad_rows=skips)


def test_an_empty_folder_of_a_split_is_not_made_of_training_rows(tree):
    path, _ = tree
    for file in (path / "dev-clean" / "1" / "9").iterdir():
        file.unlink()
    with pytest.raises(UserError, match=r"left of the validation split \(it is empty\)"):
        speech.find(path, LIMITS)


TABLE_FAULTS = {
    "an empty transcript": (b"x.wav\t", r"x.wav: no transcript \(train.tsv:3 has none\)"),
    "a transcript of spaces": (b"x.wav\t  ", r"x.wav: no transcript \(train.tsv:3 has none\)"),
    "no field": (b"x.wav", r"x.wav: no transcript \(train.tsv:3 has none\)"),
    "no path": (b"\tA", "train.tsv:3: no path"),
    "a field too many": (b"x.wav\tA\tB", r"train.tsv:3: more fields than columns \(3 of 2\)"),
    "Latin-1": (b"x.wav\tCAF\xc9", r"train.tsv:3: unreadable \(character 10 is no Unicode"),
}


@pytest.mark.parametrize("kind", TABLE_FAULTS)
def test_a_line_of_a_table_that_cannot_be_used_is_named(tmp_path, kind):
    line, message = TABLE_FAULTS[kind]
    write(tmp_path / "x.wav")
    table(tmp_path, "train", *TRAIN_LINES)
    path = tmp_path / "train.tsv"
    header, first, *others = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join([header, first, line + b"\n", *others]))
    with pytest.raises(UserError, match=message):
        speech.find(tmp_path, LIMITS)
    found = speech.find(tmp_path, LIMITS, skip_bad_rows=True)
    assert sum(map(len, found.splits.values())) == len(TRAIN_LINES)
    assert list(found.notes["bad_rows"]["train"].values()) == [1]


def test_a_byte_order_mark_hides_no_column(tmp_path):
    table(tmp_path, "train", *TRAIN_LINES)
    plain = speech.find(tmp_path, LIMITS)
    path = tmp_path / "train.tsv"
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    assert speech.find(tmp_path, LIMITS) == plain


TABLES_REFUSED = {
    "UTF-16": ("path\ttranscript\n".encode("utf-16"), r"train.tsv:1: unreadable \(character 1 "),
    "a column twice": (b"path\ttranscript\ttranscript\n", "train.tsv: column transcript twice"),
    "a field without end": (
        b"path\ttranscript\nx.wav\t" + b"A" * 200_000 + b"\n",
        r"train.tsv:2: unreadable \(field larger",
    ),
}


@pytest.fixture
def usual_field_limit():
    """The csv module's own; readers of articles raise it for the whole process."""
    before = csv.field_size_limit(2**17)
    yield
    csv.field_size_limit(before)


@pytest.mark.usefixtures("usual_field_limit")
@pytest.mark.parametrize("kind", TABLES_REFUSED)
def test_a_table_that_is_none_is_named(tmp_path, kind):
    content, message = TABLES_REFUSED[kind]
    (tmp_path / "train.tsv").write_bytes(content)
    with pytest.raises(UserError, match=message):
        speech.find(tmp_path, LIMITS)


def test_a_chapter_s_lines_may_begin_with_a_mark_and_are_named_where_they_are_no_text(tree):
    path, _ = tree
    lines = path / "train-clean-100" / "7" / "9" / "7-9.trans.txt"
    plain = speech.find(path, LIMITS)
    lines.write_bytes(b"\xef\xbb\xbf" + lines.read_bytes())
    assert speech.find(path, LIMITS) == plain
    lines.write_bytes(b"7-9-0000 HELLO\n7-9-0001 CAF\xc9\n")
    with pytest.raises(UserError, match=r"7-9.trans.txt:2: unreadable \(character 13 is no Uni"):
        speech.find(path, LIMITS)
    found = speech.find(path, LIMITS, skip_bad_rows=True)
    assert found.notes["bad_rows"] == {"train": {"unreadable": 1}}
    assert len(found.splits["train"]) == 3


BAD = {
    "another rate": (
        lambda path: write(path, rate=8000),
        r"another sampling rate \(8000 Hz, expected 16000 Hz\); nothing is resampled here",
    ),
    "several channels": (lambda path: write(path, channels=2), r"several channels \(2\)"),
    "no sound": (lambda path: path.write_bytes(b"fLaC nothing"), "not a readable sound file"),
    "missing": (lambda path: path.unlink(), "not a readable sound file"),
}


@pytest.mark.parametrize("kind", BAD)
def test_a_file_that_cannot_be_used_is_named_with_the_reason(tree, kind):
    path, _ = tree
    damage, message = BAD[kind]
    damage(path / "train-clean-100" / "7" / "9" / "7-9-0001.flac")
    with pytest.raises(UserError, match=f"7-9-0001.flac: {message}"):
        speech.find(path, LIMITS)
    found = speech.find(path, LIMITS, skip_bad_rows=True)
    assert len(found.splits["train"]) == 3
    assert list(found.notes["bad_rows"]) == ["train"]
    assert list(found.notes["bad_rows"]["train"].values()) == [1]


def test_a_missing_line_is_named(tree):
    path, _ = tree
    table = path / "dev-clean" / "1" / "9" / "1-9.trans.txt"
    table.write_text(table.read_text().splitlines(keepends=True)[0])
    with pytest.raises(UserError, match=r"1-9-0001.flac: no transcript .*add the line"):
        speech.find(path, LIMITS)
    found = speech.find(path, LIMITS, skip_bad_rows=True)
    assert found.notes["bad_rows"] == {"validation": {"no transcript": 1}}
    table.write_text("1-9-0000 A\n1-9-0001 \n")
    with pytest.raises(UserError, match=r"1-9-0001.flac: no transcript .*is missing or empty"):
        speech.find(path, LIMITS)


def test_a_cut_file_is_named_when_it_is_read(tree):
    path, _ = tree
    cut = path / "test-clean" / "2" / "9" / "2-9-0001.flac"
    write(cut, 12_000)
    cut.write_bytes(cut.read_bytes()[:9000])
    found = speech.find(path, LIMITS)
    found.splits["test"][0].read()
    with pytest.raises(OSError, match=r"2-9-0001.flac: damaged .*download it again"):
        found.splits["test"][1].read()
    skipped = speech.find(path, LIMITS, skip_bad_rows=True)
    assert [each.path.stem for each in skipped.splits["test"]] == ["2-9-0000"]
    assert list(skipped.notes["bad_rows"]) == ["test"]


@pytest.mark.parametrize("kind", ["wav", "aiff"])
def test_a_cut_file_that_says_how_long_it_was_is_named_at_once(tmp_path, kind):
    """libsndfile reads such a file as a shorter recording."""
    (tmp_path / "train.tsv").write_text(
        "path\ttranscript\n" + "".join(f"{number}.{kind}\tHELLO\n" for number in range(4))
    )
    for number in range(4):
        write(tmp_path / f"{number}.{kind}", 1000)
    assert sum(map(len, speech.find(tmp_path, LIMITS).splits.values())) == 4
    cut = tmp_path / f"2.{kind}"
    whole = cut.read_bytes()
    cut.write_bytes(whole[:-500])
    assert soundfile.info(cut).frames < 1000
    with pytest.raises(UserError, match=rf"2.{kind}: cut \(500 of {len(whole)} bytes are missing"):
        speech.find(tmp_path, LIMITS)
    found = speech.find(tmp_path, LIMITS, skip_bad_rows=True)
    assert found.notes["bad_rows"] == {"train": {"cut": 1}}


def test_a_wav_file_whose_writer_knew_no_length_is_read(tmp_path):
    """As programs write it that cannot go back in their output."""
    path = tmp_path / "0_jackson_5.wav"
    write(path, 1000)
    content = bytearray(path.read_bytes())
    content[4:8] = content[40:44] = b"\xff" * 4
    path.write_bytes(content)
    for take in (0, 8, 9):
        write(tmp_path / f"0_jackson_{take}.wav", 1000)
    assert speech.find(tmp_path, LIMITS).splits["validation"][0].samples == 1000


def test_a_file_that_is_shorter_when_it_is_read_is_named(tree):
    path, _ = tree
    found = speech.find(path, LIMITS)
    write(path / "test-clean" / "2" / "9" / "2-9-0001.flac", 200)
    with pytest.raises(OSError, match=r"2-9-0001.flac: damaged \(200 of 350 samples\)"):
        found.splits["test"][1].read()


def test_a_folder_of_something_else_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"no utterances in a layout that is known: LibriSpeech's"):
        speech.find(tmp_path, LIMITS)
    (tmp_path / "train-clean-100.tar.gz").write_bytes(b"")
    with pytest.raises(UserError, match=r"no utterances in a layout that is known: LibriSpeech's"):
        speech.find(tmp_path, LIMITS)
    (tmp_path / "train.tsv").write_text("file\ttranscript\n")
    with pytest.raises(UserError, match=r"train.tsv: no column path .* it has: file, transcript"):
        speech.find(tmp_path, LIMITS)


def test_the_fingerprint_is_of_names_sizes_and_transcripts(tree):
    path, _ = tree
    before = speech.fingerprint(speech.find(path, LIMITS).splits["train"])
    table = path / "train-clean-100" / "7" / "9" / "7-9.trans.txt"
    table.write_text(table.read_text().replace("7-9-0001 HELLO", "7-9-0001 HELP"))
    assert speech.fingerprint(speech.find(path, LIMITS).splits["train"]) != before


def test_without_soundfile_the_extra_is_named(tree, monkeypatch):
    monkeypatch.setitem(sys.modules, "soundfile", None)
    with pytest.raises(UserError, match=r"need the package soundfile.*algoperf\[speech\]"):
        speech.find(tree[0], LIMITS)
