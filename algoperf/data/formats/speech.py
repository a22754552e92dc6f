"""Recorded utterances and their transcripts, in one of three layouts.

LibriSpeech (Panayotov et al. 2015): `SPLIT/speaker/chapter/*.flac`, and beside them a file
`*.trans.txt` with an utterance's name and its transcript in each line; the splits of training are
those called train-*, those of validation dev-*, and test-clean is the test split. The Free Spoken
Digit Dataset: a folder of files `digit_speaker_take.wav`; takes 0 to 4 are the test split, as it
recommends, and takes 5 to 7 are for validation. Or any folder with `train.tsv`, and `test.tsv` and
`validation.tsv` if there are such: tables with columns `path`, below the folder, and `transcript`.
A split that is not there is a seeded tenth of the training utterances; one that is there and of
which nothing can be used is an error.
"""

import csv
import dataclasses
import hashlib
import importlib
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from algoperf.data.formats import sources
from algoperf.errors import UserError
from algoperf.workload import SPLITS

DIGITS = ("ZERO", "ONE", "TWO", "THREE", "FOUR", "FIVE", "SIX", "SEVEN", "EIGHT", "NINE")
DIGIT_FILE = re.compile(r"(\d)_([^_]+)_(\d+)\.wav")
TEST_TAKES, VALIDATION_TAKES = range(5), range(5, 8)
TREE = {"train": "train-*", "validation": "dev-*", "test": "test-clean"}
HELD_OUT = 10  # of the training utterances, one is for a split that is not there
COLUMNS = ("path", "transcript")
# Files whose first bytes are followed by the number of bytes that come then, and its byte order.
SIZED: Mapping[bytes, Literal["little", "big"]] = {b"RIFF": "little", b"FORM": "big"}
UNKNOWN_SIZE = 0x7FFF0000  # Such a size or a larger one writes who does not know it beforehand.
LAYOUTS = (
    "LibriSpeech's (train-*/SPEAKER/CHAPTER/*.flac and *.trans.txt), Free Spoken Digit's "
    "(DIGIT_SPEAKER_TAKE.wav) or train.tsv with columns path and transcript"
)


@dataclasses.dataclass(frozen=True)
class Utterance:
    """A file that was looked at.

    Attributes:
        path: Where it is.
        transcript: What is said.
        samples: The number of its samples.
    """

    path: Path
    transcript: str
    samples: int

    def read(self) -> NDArray[np.int16]:
        """Return the samples, of 16 bits.

        Raises:
            OSError: The file is damaged, or not what it was; the message names it.
        """
        library = _soundfile()
        try:
            samples, _ = library.read(self.path, dtype="int16")
        except (library.LibsndfileError, RuntimeError) as error:
            raise OSError(f"{self.path}: damaged ({error}); download it again") from error
        if samples.shape != (self.samples,):
            raise OSError(
                f"{self.path}: damaged ({len(samples)} of {self.samples} samples); download it "
                "again"
            )
        recorded: NDArray[np.int16] = samples
        return recorded


class UnusableError(UserError):
    """An utterance that cannot be used.

    Attributes:
        reason: What such utterances are counted under.
    """

    def __init__(self, message: str, reason: str = "") -> None:
        super().__init__(message)
        self.reason = reason


# A file, and its transcript or why it cannot be used.
Listed = tuple[Path, str | UnusableError]


@dataclasses.dataclass(frozen=True)
class Limits:
    """What utterances a workload takes.

    Attributes:
        rate: Samples a second; None takes that of the first file.
        seconds: The longest one.
        characters: The longest transcript.
    """

    rate: int | None
    seconds: float
    characters: int


@dataclasses.dataclass(frozen=True)
class Recordings:
    """The utterances of all splits.

    Attributes:
        splits: By split.
        rate: Samples a second, of all.
        notes: How many were left out by split and reason: 'dropped' for their length, 'bad_rows'
            since they cannot be used; and 'held_out', the splits that were made here.
    """

    splits: Mapping[str, Sequence[Utterance]]
    rate: int
    notes: Mapping[str, Any]


def fingerprint(utterances: Sequence[Utterance]) -> str:
    """Return a digest of the files' names and sizes and of the transcripts; files may be moved."""
    listed = [
        f"{each.path.name}:{each.path.stat().st_size}:{each.transcript}" for each in utterances
    ]
    return hashlib.sha256("\n".join(listed).encode()).hexdigest()


def find(folder: Path, limits: Limits, seed: int = 0, skip_bad_rows: bool = False) -> Recordings:
    """Return the utterances of a folder; none is decoded, but with `skip_bad_rows` all are.

    Args:
        folder: A folder of one of the layouts.
        limits: What is too long is dropped and counted.
        seed: The seed of a split that is held out here.
        skip_bad_rows: Whether utterances that cannot be used are left out and counted.

    Raises:
        UserError: The folder has none of the layouts, an utterance cannot be used, nothing is left
            of a split, or soundfile is not installed. The message names the file and says what to
            do.
    """
    _soundfile()
    if (folder / "train.tsv").is_file():
        tables = {split: folder / f"{split}.tsv" for split in SPLITS}
        located = {split: list(_of_table(path)) for split, path in tables.items() if path.is_file()}
    elif _has_folder(folder, TREE["train"]):
        located = {
            split: list(_of_tree(folder, name))
            for split, name in TREE.items()
            if _has_folder(folder, name)
        }
    else:
        located = _of_digits(folder)
    rate = limits.rate
    splits: dict[str, list[Utterance]] = {}
    dropped: dict[str, dict[str, int]] = {split: {} for split in SPLITS}
    bad: dict[str, dict[str, int]] = {split: {} for split in SPLITS}
    for split, pairs in located.items():
        kept: list[Utterance] = []
        splits[split] = kept
        for path, transcript in pairs:
            try:
                utterance, rate = _looked_at(path, transcript, rate, decodes=skip_bad_rows)
            except UnusableError as error:
                if not skip_bad_rows:
                    raise
                bad[split][error.reason] = bad[split].get(error.reason, 0) + 1
                continue
            excess = _too_long(utterance, rate, limits)
            if excess is None:
                kept.append(utterance)
            else:
                dropped[split][excess] = dropped[split].get(excess, 0) + 1
        check_left(folder, split, kept, {**bad[split], **dropped[split]})
    held_out = _hold_out(splits, seed)
    for split in SPLITS:
        if not splits[split]:
            raise UserError(f"{folder}: no usable utterance to make the {split} split of")
    assert rate is not None
    notes = {
        "dropped": {split: reasons for split, reasons in dropped.items() if reasons},
        "bad_rows": {split: reasons for split, reasons in bad.items() if reasons},
        "held_out": held_out,
    }
    return Recordings({split: splits[split] for split in SPLITS}, rate, notes)


def check_left(
    folder: Path | str, split: str, utterances: Sequence[Utterance], left_out: Mapping[str, int]
) -> None:
    """Raise UserError where a split has no utterance: training ones in its stead would be a score
    of another split.

    Args:
        folder: Where the split is, for the message.
        split: Its name.
        utterances: What is left of it.
        left_out: How many were left out, by reason.
    """
    if not utterances:
        reasons = ", ".join(f"{count} x {reason}" for reason, count in left_out.items())
        otherwise = ", or remove them" if split != "train" else ""
        raise UserError(
            f"{folder}: no utterance is left of the {split} split ({reasons or 'it is empty'}); "
            f"mend its files{otherwise}"
        )


def _looked_at(
    path: Path, transcript: str | UnusableError, rate: int | None, *, decodes: bool
) -> tuple[Utterance, int]:
    if isinstance(transcript, UnusableError):
        raise transcript
    library = _soundfile()
    try:
        info = library.info(path)
    except (library.LibsndfileError, RuntimeError, OSError) as error:
        advice = "download it again"
        raise _unusable(path, "not a readable sound file", error, advice) from error
    missing = _missing_bytes(path)
    if missing:
        detail = f"{missing} of {path.stat().st_size + missing} bytes are missing"
        raise _unusable(path, "cut", detail, "download it again")
    if info.channels != 1:
        raise _unusable(path, "several channels", info.channels, "one is expected")
    if rate is not None and info.samplerate != rate:
        raise _unusable(
            path,
            "another sampling rate",
            f"{info.samplerate} Hz, expected {rate} Hz",
            "nothing is resampled here, as how it is done changes every feature: convert the files "
            "beforehand",
        )
    utterance = Utterance(path, " ".join(transcript.split()), info.frames)
    if decodes:
        try:
            utterance.read()
        except OSError as error:
            raise UnusableError(str(error), "damaged") from error
    return utterance, info.samplerate


def _missing_bytes(path: Path) -> int:
    """How many bytes a WAV or an AIFF file has less than it says; libsndfile takes what is left of
    it as a shorter recording, to which the transcript would not belong.
    """
    with path.open("rb") as file:
        kind, size_bytes = file.read(4), file.read(4)
    if kind not in SIZED:
        return 0
    size = int.from_bytes(size_bytes, SIZED[kind])
    missing = size + 8 - path.stat().st_size
    # A last byte that only makes the number of bytes even is left out by some programs.
    return missing if missing > 1 and size < UNKNOWN_SIZE else 0


def _unusable(
    location: object, reason: str, detail: object = "", advice: str = ""
) -> UnusableError:
    bracketed = f" ({detail})" if detail else ""
    return UnusableError(
        f"{location}: {reason}{bracketed}" + (f"; {advice}" if advice else ""), reason
    )


def _too_long(utterance: Utterance, rate: int, limits: Limits) -> str | None:
    if utterance.samples > limits.seconds * rate:
        return f"over {limits.seconds:g} s"
    if len(utterance.transcript) > limits.characters:
        return f"over {limits.characters} characters"
    return "no samples" if utterance.samples == 0 else None


def _hold_out(splits: dict[str, list[Utterance]], seed: int) -> list[str]:
    """Make each missing split of a tenth of the training utterances; return which were made."""
    missing = [split for split in SPLITS[1:] if split not in splits]
    train = splits["train"]
    generator = np.random.default_rng(np.random.SeedSequence([seed, len(train)]))
    order = generator.permutation(len(train)).tolist()
    size = -(-len(train) // HELD_OUT)
    for number, split in enumerate(missing):
        chosen = sorted(order[number * size : (number + 1) * size])
        splits[split] = [train[index] for index in chosen]
    kept = sorted(order[len(missing) * size :])
    splits["train"] = [train[index] for index in kept]
    return missing


def _has_folder(folder: Path, name: str) -> bool:
    return any(path.is_dir() for path in folder.glob(name))


def _of_tree(folder: Path, name: str) -> Iterator[Listed]:
    """LibriSpeech's files and transcripts, sorted by name."""
    for chapter in sorted(folder.glob(f"{name}/*/*")):
        transcripts: dict[str, str | UnusableError] = {}
        for table in sorted(chapter.glob("*.trans.txt")):
            with table.open(encoding="utf-8-sig", errors="surrogateescape") as lines:
                for number, line in enumerate(lines, start=1):
                    utterance, _, transcript = line.strip().partition(" ")
                    fault = sources.undecodable(line)
                    transcripts[utterance] = (
                        _unusable(f"{table}:{number}", "unreadable", fault) if fault else transcript
                    )
        paths = sorted(chapter.glob("*.flac"))
        known = {path.stem for path in paths}
        absent = [utterance for utterance in transcripts if utterance and utterance not in known]
        paths += [chapter / f"{utterance}.flac" for utterance in absent]
        for path in paths:
            yield (
                path,
                transcripts.get(path.stem)
                or _unusable(
                    path,
                    "no transcript",
                    "its line in the chapter's .trans.txt is missing or empty",
                    "add the line, or remove the file",
                ),
            )


def _of_digits(folder: Path) -> dict[str, list[Listed]]:
    located: dict[str, list[Listed]] = {split: [] for split in SPLITS}
    for path in sorted(folder.rglob("*.wav")):
        matched = DIGIT_FILE.fullmatch(path.name)
        if matched is not None:
            digit, take = int(matched[1]), int(matched[3])
            split = "test" if take in TEST_TAKES else "train"
            split = "validation" if take in VALIDATION_TAKES else split
            located[split].append((path, DIGITS[digit]))
    if not located["train"]:
        raise UserError(f"{folder}: no utterances in a layout that is known: {LAYOUTS}")
    return {split: pairs for split, pairs in located.items() if pairs}


def _of_table(table: Path) -> Iterator[Listed]:
    """A table's files and transcripts, in its order."""
    header: list[str] | None = None
    with table.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
        rows = csv.reader(file, delimiter="\t", quoting=csv.QUOTE_NONE)
        try:
            for fields in rows:
                location = f"{table}:{rows.line_num}"
                fault = sources.undecodable("\t".join(fields))
                if header is None:
                    if fault:
                        raise UserError(f"{location}: unreadable ({fault})")
                    header = fields
                    _check_columns(table, header)
                elif fields:
                    yield _of_line(table, location, header, fields, fault)
        except csv.Error as error:
            raise UserError(f"{table}:{rows.line_num}: unreadable ({error})") from error
    if header is None:
        _check_columns(table, [])


def _check_columns(table: Path, header: Sequence[str]) -> None:
    missing = [column for column in COLUMNS if column not in header]
    if missing:
        raise UserError(
            f"{table}: no column {', '.join(missing)} in its first line; it has: "
            f"{', '.join(header) or 'nothing'}"
        )
    for column in COLUMNS:
        if header.count(column) > 1:
            raise UserError(f"{table}: column {column} twice in its first line; one is expected")


def _of_line(
    table: Path, location: str, header: Sequence[str], fields: Sequence[str], fault: str
) -> Listed:
    """The file and the transcript of a table's line, of which fields at the end may be missing."""
    named = dict(zip(header, fields, strict=False))
    path, transcript = (named.get(column, "") for column in COLUMNS)
    if fault:
        return table, _unusable(location, "unreadable", fault)
    if any(fields[len(header) :]):
        counts = f"{len(fields)} of {len(header)}"
        return table, _unusable(location, "more fields than columns", counts)
    if not path:
        return table, _unusable(location, "no path", "", "add it, or remove the line")
    if not transcript.strip():
        where = f"{table.name}:{location.rpartition(':')[2]} has none"
        advice = "add it, or remove the line"
        return table, _unusable(table.parent / path, "no transcript", where, advice)
    return table.parent / path, transcript.upper()


def _soundfile() -> Any:
    try:
        return importlib.import_module("soundfile")
    except ImportError as error:
        raise UserError(
            "sound files need the package soundfile; install it with: pip install "
            "'algoperf[speech]'"
        ) from error
