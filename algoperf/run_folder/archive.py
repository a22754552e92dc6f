"""Trials that have ended in one compressed file, and run folders made of such a file.

The file is a tar archive of plain files, compressed by xz, whose names are

    <experiment>/<submission>/study_<k>/<workload>_<framework>/trial_<j>/<file>

It has what scores, pages and campaigns read of a trial: `FILES`, and the flags and facts of each
time that it began. Checkpoints, predictions, event files, copies of the submission's source and
what was set aside are left out. Equal trials give equal bytes, wherever their folders lie.
"""

import collections
import dataclasses
import io
import json
import lzma
import os
import platform
import re
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from algoperf.errors import UserError
from algoperf.machine import supervision
from algoperf.run_folder import run_log, writing

FILES = (run_log.RESULT, run_log.HYPERPARAMETERS, run_log.EVALUATIONS, run_log.SCALARS)
RUNNING, INTERRUPTED, DAMAGED = "running", "interrupted", "damaged"
WHY_LEFT_OUT = {
    RUNNING: "running",
    INTERRUPTED: "interrupted or without a result",
    DAMAGED: "with a result that is damaged",
}
MOST_BYTES = 2**30  # of an archive before it is compressed
MOST_FILES = 200_000
MOST_MEMORY = 2**28  # that xz may take to decompress
PATHS = ("submission_path", "workload_folder")  # Settings that are not compared.
MACHINE = ("hardware", "versions", "environment", "hardware_class", "framework_threads")

_NUMBER = "(0|[1-9][0-9]*)"
_STUDY, _TRIAL = re.compile(f"study_{_NUMBER}"), re.compile(f"trial_{_NUMBER}")
_WORKLOAD = re.compile("(.+)_(jax|pytorch)")
_NUMBERED = re.compile(f"(flags|meta_data)_{_NUMBER}\\.json")
_FOLDER_NAME = re.compile(r"[^./\\\x00-\x1f\x7f][^/\\\x00-\x1f\x7f]*")
_ABSOLUTE = re.compile(r"(?<![^\s='\"])/(?:[^\s/'\"]*/)*([^\s/'\"]+)")
_PARTS = 5  # of the name of a trial: experiment, submission, study, workload and trial
_CHUNK = 2**20

Files = Mapping[str, bytes]
Trials = dict[str, Files]


@dataclasses.dataclass(frozen=True)
class Packed:
    """What was written to an archive.

    Attributes:
        trials: How many trials it has.
        added: How many of these it did not have before.
        replaced: How many it had with another result.
        left_out: How many trials of the folders are not in it, by the keys of `WHY_LEFT_OUT`.
        machines: How many different machines, versions and settings that move the clock the trials
            record; `algoperf score` never pools them.
        bytes: Its size.
    """

    trials: int
    added: int
    replaced: int
    left_out: Mapping[str, int]
    machines: int
    bytes: int


def pack(sources: Sequence[Path], file: Path, *, replace: bool = False) -> Packed:
    """Write the trials below folders, and those that a file already has, to that file.

    Trials without a result, and those that a process works on, are left out and counted.

    Args:
        sources: Folders that hold runs, at any depth, or files that `pack` wrote.
        file: The file to write.
        replace: Whether a trial of the sources takes the place of another result of the same trial
            in the file.

    Raises:
        UserError: A source has no runs or cannot be read, two of them have different results of one
            trial, so have the sources and the file without `replace`, or the file cannot be
            written.
    """
    writing.check_file("FILE", file)
    trials: Trials = {}
    origins: dict[str, Path] = {}
    left_out: collections.Counter[str] = collections.Counter()
    for source in sources:
        for name, where, files in _trials_of(source, left_out):
            if trials.setdefault(name, files) != files:
                raise UserError(
                    f"{name}: {origins[name]} and {where} have different results of this trial; "
                    "pack one of the two"
                )
            origins.setdefault(name, where)
    if not trials:
        given = ", ".join(map(str, sources))
        raise UserError(f"no trial that has ended in {given}: nothing to pack")
    before = read(file) if file.exists() else {}
    changed = [name for name in trials if name in before and before[name] != trials[name]]
    if changed and not replace:
        raise UserError(
            f"{changed[0]}: {origins[changed[0]]} and {file} have different results of this trial "
            f"({len(changed)} so); --replace takes those of the folders"
        )
    kept = before | trials
    data = _compressed(kept, file)
    neighbour = file.with_name(f".{file.name}.writing-{platform.node()}-{os.getpid()}")
    with writing.asked("FILE", file):
        try:
            neighbour.write_bytes(data)
            neighbour.replace(file)
        finally:
            neighbour.unlink(missing_ok=True)
    machines = {_machine(files) for files in kept.values()}
    added = len(kept) - len(before)
    return Packed(len(kept), added, len(changed), dict(left_out), len(machines), len(data))


def unpack(file: Path, folder: Path) -> int:
    """Write the run folders of an archive's trials, with which a campaign goes on.

    Args:
        file: A file that `pack` wrote.
        folder: The folder to write them to. Of a trial that it has already nothing is changed.

    Returns:
        How many trials were written that were not there.

    Raises:
        UserError: The file is none that `pack` wrote, the folder has another result of a trial, or
            it cannot be written.
    """
    trials = read(file)
    writing.check_folder("DIR", folder)
    missing = {
        name: files for name, files in trials.items() if not _is_there(folder / name, files, file)
    }
    with writing.asked("DIR", folder):
        folder.mkdir(parents=True, exist_ok=True)
        for name, files in missing.items():
            (folder / name).mkdir(parents=True, exist_ok=True)
            # A trial counts as ended once it has a result, so this comes last.
            for each in sorted(files, key=lambda each: (each == run_log.RESULT, each)):
                (folder / name / each).write_bytes(files[each])
    return len(missing)


def _is_there(folder: Path, files: Files, file: Path) -> bool:
    """Return whether a trial is in its folder already.

    Raises:
        UserError: The folder has other files of it.
    """
    if not folder.exists():
        return False
    there = _files_of(folder)
    if supervision.is_locked(folder) or any(files.get(name) != there[name] for name in there):
        raise UserError(
            f"{folder}: holds another run of this trial than {file}; unpack to a new folder"
        )
    return run_log.RESULT in there


def _trials_of(
    source: Path, left_out: collections.Counter[str]
) -> Iterator[tuple[str, Path, Files]]:
    """Yield name, place and files of each trial of a folder or an archive that has ended."""
    if source.is_file():
        for name, files in read(source).items():
            yield name, source, files
        return
    if not source.is_dir():
        raise UserError(f"{source} does not exist; give a folder of runs, or a file of them")
    folders = sorted(_trial_folders(source.resolve()))
    if not folders:
        raise UserError(f"no runs in {source}: no folder <submission>/study_<k>/... below it")
    for folder in folders:
        ended = _ended(folder)
        if isinstance(ended, str):
            left_out[ended] += 1
        else:
            yield "/".join(folder.parts[-_PARTS:]), folder, ended


def _trial_folders(root: Path) -> Iterator[Path]:
    """Yield the folders of trials at or below a folder."""
    waiting, seen = [root], {root}
    while waiting:
        folder = waiting.pop()
        if _is_name("/".join(folder.parts[-_PARTS:])):
            yield folder
            continue
        try:
            entries = [each for each in folder.iterdir() if not each.name.startswith(".")]
        except OSError as error:
            raise UserError(f"{folder} cannot be listed ({error.strerror})") from error
        for entry in entries:
            if entry.is_dir() and entry.resolve() not in seen:  # A link may lead back up.
                seen.add(entry.resolve())
                waiting.append(entry)


def _is_name(name: str) -> bool:
    """Return whether a text can be the name of a trial in an archive."""
    parts = name.split("/")
    if len(parts) != _PARTS:
        return False
    patterns = (_FOLDER_NAME, _FOLDER_NAME, _STUDY, _WORKLOAD, _TRIAL)
    return all(_FOLDER_NAME.fullmatch(part) for part in parts) and all(
        pattern.fullmatch(part) for pattern, part in zip(patterns, parts, strict=True)
    )


def _ended(folder: Path) -> Files | str:
    """Return what is kept of a trial's files, or why it is left out, a key of `WHY_LEFT_OUT`."""
    if supervision.is_locked(folder):
        return RUNNING
    if not (folder / run_log.RESULT).exists() or not _is_whole_population(folder.parent):
        return INTERRUPTED
    if run_log.read_result(folder) is None:
        return DAMAGED
    files = _files_of(folder)
    # It may be run anew, or be set aside, while it is read.
    if supervision.is_locked(folder) or _files_of(folder) != files:
        return RUNNING
    return files


def _is_whole_population(study: Path) -> bool:
    """Return whether all members of a study have ended, if they copy each other."""
    if not (study / run_log.POPULATION).exists():
        return True
    return all((folder / run_log.RESULT).exists() for folder in study.glob("trial_*"))


def _files_of(folder: Path) -> dict[str, bytes]:
    """Return what is kept of the files of a trial, by their names."""
    try:
        names = sorted(path.name for path in folder.iterdir() if _is_kept(path.name))
        return {name: _kept(name, (folder / name).read_bytes()) for name in names}
    except OSError as error:
        raise UserError(f"{folder} cannot be read ({error.strerror or error})") from error


def _is_kept(name: str) -> bool:
    return name in FILES or _NUMBERED.fullmatch(name) is not None


def _kept(name: str, content: bytes) -> bytes:
    """Return what is kept of a file.

    Folders of the machine go from paths; what the load was in each stretch between evaluations, and
    samples of the texts that were written, go from results. All else stays byte by byte.
    """
    try:
        value = json.loads(content)
    except (ValueError, RecursionError):
        return content
    if not isinstance(value, dict):
        return content
    changed: dict[str, Any] = {}
    for key in PATHS:
        if isinstance(value.get(key), str) and Path(value[key]).is_absolute():
            changed[key] = Path(value[key]).name
    if isinstance(value.get("command"), str):
        changed["command"] = _ABSOLUTE.sub(r"\1", value["command"])
    if name == run_log.RESULT:
        if isinstance(value.get("load"), dict):
            changed["load"] = {
                key: each for key, each in value["load"].items() if key != "segments"
            }
        if value.get("examples"):
            changed["examples"] = []
    if all(value[key] == each for key, each in changed.items()):
        return content
    return (json.dumps(value | changed, indent=2, sort_keys=True) + "\n").encode()


def _machine(files: Files) -> str:
    """Return as text what a trial records of its machine, in the flags that it last began with."""
    numbers = [int(match[2]) for name in files if (match := _NUMBERED.fullmatch(name))]
    try:
        flags = json.loads(files[f"flags_{max(numbers)}.json"])
        return json.dumps([flags.get(name) for name in MACHINE], sort_keys=True)
    except (ValueError, KeyError, AttributeError, RecursionError):
        return ""


def _compressed(trials: Trials, file: Path) -> bytes:
    """Return the bytes of an archive of trials."""
    stream = io.BytesIO()
    with tarfile.open(
        fileobj=stream, mode="w", format=tarfile.GNU_FORMAT, encoding="utf-8"
    ) as archive:
        for name in sorted(trials):
            for each in sorted(trials[name]):
                member = tarfile.TarInfo(f"{name}/{each}")  # of no time and nobody's
                member.size = len(trials[name][each])
                archive.addfile(member, io.BytesIO(trials[name][each]))
    if stream.tell() > MOST_BYTES or sum(map(len, trials.values())) > MOST_FILES:
        raise UserError(
            f"FILE {file}: more than an archive may have ({MOST_BYTES:,} bytes, {MOST_FILES:,} "
            "files); pack the submissions in several files, which `algoperf score` takes together"
        )
    return lzma.compress(stream.getvalue(), format=lzma.FORMAT_XZ)


def read(file: Path) -> Trials:
    """Return the files of each trial of an archive, both by name; nothing is written.

    Raises:
        UserError: It is no file that `pack` wrote, or could be harmful: it is too large, or has
            paths that lead elsewhere, links, or one name twice.
    """
    data = _decompressed(file)
    trials: dict[str, dict[str, bytes]] = {}
    try:
        with tarfile.open(fileobj=io.BytesIO(data), mode="r:", encoding="utf-8") as archive:
            for number, member in enumerate(archive):
                if number >= MOST_FILES:
                    raise _refused(file, f"it has more than {MOST_FILES:,} files")
                name, each = _checked(file, member)
                files = trials.setdefault(name, {})
                if each in files:
                    raise _refused(file, f"it has {member.name!r} twice")
                content = archive.extractfile(member)
                assert content is not None
                files[each] = content.read()
    except tarfile.FilterError as error:
        raise _refused(file, str(error)) from error
    except (tarfile.TarError, ValueError, OverflowError, RecursionError) as error:
        raise _refused(file, f"what xz holds is no tar archive ({error})") from error
    for name, files in trials.items():
        if run_log.RESULT not in files:
            raise _refused(file, f"{name} has no {run_log.RESULT}")
    if not trials:
        raise _refused(file, "it has no trial")
    return dict(trials)


def _checked(file: Path, member: tarfile.TarInfo) -> tuple[str, str]:
    """Return the name of a member's trial, and of its file.

    Raises:
        UserError: It is not a file that `pack` keeps, at its place.
        tarfile.FilterError: It would be written elsewhere.
    """
    tarfile.data_filter(member, str(Path.cwd()))
    if member.type not in (tarfile.REGTYPE, tarfile.AREGTYPE):
        raise _refused(file, f"{member.name!r} is not a plain file")
    name, _, each = member.name.rpartition("/")
    if not (_is_name(name) and _is_kept(each)):
        raise _refused(file, f"{member.name!r} is no file of a trial")
    return name, each


def _decompressed(file: Path) -> bytes:
    decoder = lzma.LZMADecompressor(lzma.FORMAT_XZ, MOST_MEMORY)
    parts: list[bytes] = []
    total = 0
    try:
        with file.open("rb") as stream:
            while not decoder.eof:
                given = stream.read(_CHUNK) if decoder.needs_input else b""
                if decoder.needs_input and not given:
                    raise _refused(file, "it ends too early")
                parts.append(decoder.decompress(given, _CHUNK))
                total += len(parts[-1])
                if total > MOST_BYTES:
                    raise _refused(file, f"it is larger than {MOST_BYTES:,} bytes")
            if decoder.unused_data or stream.read(1):
                raise _refused(file, "something follows it")
    except lzma.LZMAError as error:
        raise _refused(file, f"xz: {error}") from error
    except OSError as error:
        raise UserError(f"{file} cannot be read ({error.strerror or error})") from error
    return b"".join(parts)


def _refused(file: Path, why: str) -> UserError:
    return UserError(f"{file}: no file that `algoperf pack` wrote: {why}")
