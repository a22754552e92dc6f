"""Claim a run folder among the processes of all machines that see it.

A claim is a file beside the folder, `.<folder>.claim-<n>`. Whoever creates it, which only one can,
holds the folder; it keeps the file locked, and writes it anew every `BEAT_S` seconds. Others take
over, with the next number, once its holder is dead. That is known in two ways:

- The lock. A file that is locked has a live holder, on whatever machine. One that is not locked,
  and whose holder ran on this machine since it was started, has a dead one: this kernel would know.
- The beat. Of a holder on another machine, a free lock says nothing where the file system keeps
  locks on each machine for itself. It is dead once its file has not been written for `STALE_S`, and
  is not for `RELOOK_S` more. Both times are the file server's, not those of two machines.

Assumed is that creating a file with O_EXCL is exclusive over all machines, as on local file
systems, NFS from version 3 on and Lustre; that what one machine writes another one sees within
`STALE_S`; and that no machine stands still for longer and then goes on. One that does leaves at its
next beat, since it finds who took over from it.
"""

import contextlib
import fcntl
import json
import os
import platform
import re
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

BEAT_S = 10.0  # between two signs of life
STALE_S = 120.0  # how long a holder on another machine may give none
RELOOK_S = 2 * BEAT_S  # between the two looks that find no sign of life
LOCK_TRIES, LOCK_PAUSE_S = 5, 0.02  # For a file that another process only looks at.
LEFT = 75  # The exit code of a process whose claim was taken over.
_BOOT = Path("/proc/sys/kernel/random/boot_id")


class Claim:
    """A folder that this process holds, until `release`.

    Args:
        folder: The folder.
        path: The file of the claim; None where the file system takes none.
        descriptor: The open file.
        number: Its number.
        replaced: The numbers of the claims of dead holders that it replaces.
        lost: Called, in another thread, where another machine has taken over.
    """

    def __init__(
        self,
        folder: Path,
        path: Path | None = None,
        descriptor: int = -1,
        number: int = 0,
        replaced: tuple[int, ...] = (),
        lost: Callable[[str], None] = lambda who: None,
    ) -> None:
        self._folder, self._path, self._descriptor = folder, path, descriptor
        self._number, self._lost = number, lost
        self._owner = {
            "host": platform.node(),
            "boot": machine_id(),
            "process": os.getpid(),
            "replaced": list(replaced),
        }
        self._beats = 0
        self._ends = threading.Event()
        self._thread: threading.Thread | None = None

    def beat(self) -> None:
        """Give a sign of life."""
        self._beats += 1
        text = json.dumps({**self._owner, "beats": self._beats})
        with contextlib.suppress(OSError):  # A disk that takes no more: the file's lock stays.
            os.pwrite(self._descriptor, text.encode(), 0)  # It never gets shorter.
            os.fsync(self._descriptor)

    def without_lock(self) -> None:
        """Note that the file system has no locks, so that others go by the beat alone."""
        self._owner["boot"] = ""

    def begin(self) -> None:
        """Give a sign of life every `BEAT_S` seconds from now on."""
        if self._path is not None:
            self._thread = threading.Thread(target=self._go_on, daemon=True)
            self._thread.start()

    def release(self) -> None:
        """Give the folder back."""
        self._ends.set()
        if self._thread is not None:
            self._thread.join()
        if self._path is not None:
            with contextlib.suppress(OSError):
                self._path.unlink()
            os.close(self._descriptor)
            self._path = None

    def _go_on(self) -> None:
        while not self._ends.wait(BEAT_S):
            for number, path in _claims(self._folder).items():
                owner = _owner(path)
                if number > self._number and self._number in owner.get("replaced", ()):
                    self._lost(str(owner.get("host")))
                    return
            self.beat()


def claim(folder: Path, lost: Callable[[str], None] | None = None) -> Claim | str:
    """Claim a folder, or say who holds it.

    Args:
        folder: The folder, whose parent exists.
        lost: Called, in another thread, with the name of the machine that has taken the folder
            over; None leaves this process at once.

    Returns:
        The claim, which is to be released; or else the holder's machine, an empty text where that
        is this one.
    """
    dead = []
    for number, path in sorted(_claims(folder).items()):
        if _is_alive(path):
            return _host(path)
        dead.append(number)
    number = max(dead, default=0) + 1
    path = _path(folder, number)
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o666)
    except FileExistsError:
        return _host(path)
    except OSError:
        return Claim(folder)  # It takes no file; what is written there says so in its own way.
    claimed = Claim(folder, path, descriptor, number, tuple(dead), lost or _leave)
    try:
        if not lock(descriptor):
            claimed.release()
            return ""
    except OSError:
        claimed.without_lock()
    claimed.beat()
    others = {other: each for other, each in _claims(folder).items() if other != number}
    for other, each in others.items():
        if other not in dead:  # Someone claimed it at the same time.
            who = _host(each)
            claimed.release()
            return who
    for each in others.values():
        with contextlib.suppress(OSError):
            each.unlink()
    claimed.begin()
    return claimed


def holder(folder: Path) -> str | None:
    """Return the name of the machine whose process holds a folder, None where none does.

    Nothing is written. The beat of a holder on another machine is compared with this machine's
    time.
    """
    for path in _claims(folder).values():
        owner = _owner(path)
        if _shows_life(path, owner, time.time()):
            return str(owner.get("host") or platform.node())
    return None


def lock(descriptor: int) -> bool:
    """Lock an open file or folder, unless another process holds it for longer than a look takes.

    Raises:
        OSError: The file system has no locks.
    """
    for _ in range(LOCK_TRIES):
        with contextlib.suppress(BlockingIOError):
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        time.sleep(LOCK_PAUSE_S)
    return False


def machine_id() -> str:
    """Return what tells this machine, since it was started, from all others."""
    try:
        return _BOOT.read_text().strip()
    except OSError:
        return platform.node()


def _leave(who: str) -> None:
    """Leave without another word to the folder, which is another machine's now."""
    sys.stderr.write(
        f"algoperf: {who} works on this trial now, since this machine gave no sign of life for "
        f"{STALE_S:g} s; leaves it\n"
    )
    sys.stderr.flush()
    os._exit(LEFT)  # The trial's process ends with its starter.


def _path(folder: Path, number: int) -> Path:
    return folder.with_name(f".{folder.name}.claim-{number}")


def _claims(folder: Path) -> dict[int, Path]:
    """Return the claims of a folder by their numbers."""
    pattern = re.compile(rf"\.{re.escape(folder.name)}\.claim-(\d+)")
    try:
        names = [path.name for path in folder.parent.iterdir()]
    except OSError:
        return {}
    matches = filter(None, map(pattern.fullmatch, names))
    return {int(match[1]): folder.parent / match[0] for match in matches}


def _owner(path: Path) -> dict[str, Any]:
    """Return what a claim says of its holder; nothing where it is half written or gone."""
    return _parsed(_bytes(path) or b"")


def _parsed(text: bytes) -> dict[str, Any]:
    try:
        owner = json.loads(text)
    except ValueError:
        return {}
    return owner if isinstance(owner, dict) else {}


def _host(path: Path) -> str:
    """Return the name of a holder's machine; an empty text for this one, or where it is unknown."""
    owner = _owner(path)
    return "" if owner.get("boot") == machine_id() else str(owner.get("host", ""))


def _is_alive(path: Path) -> bool:
    """Return whether the holder of a claim lives, after a second look where that is not plain."""
    first = _bytes(path)
    if first is None:
        return False  # It was released.
    owner = _parsed(first)
    if _shows_life(path, owner, _server_time_s(path)):
        return True
    if owner.get("boot") == machine_id():
        return False
    time.sleep(RELOOK_S)
    return is_locked(path) or _bytes(path) not in (first, None)


def _shows_life(path: Path, owner: dict[str, Any], now_s: float) -> bool:
    """Return whether a claim is locked, or was written lately by another machine.

    Its `owner` was read before: a holder locks the file before it writes who it is, so that one of
    this machine who could be read and has no lock has lost it.
    """
    if is_locked(path):
        return True
    if owner.get("boot") == machine_id():
        return False
    try:
        with path.open("rb") as file:  # NFS asks its server when a file is opened.
            written_s = os.fstat(file.fileno()).st_mtime
    except OSError:
        return False
    return now_s - written_s <= STALE_S


def is_locked(path: Path) -> bool:
    """Return whether a process has a file or a folder locked; not where none can be seen to."""
    with _opened(path) as descriptor:
        if descriptor is None:
            return False
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        except OSError:  # A file system without locks.
            return False
    return False


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[int | None]:
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except OSError:
        yield None
        return
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _bytes(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except OSError:
        return None


def _server_time_s(path: Path) -> float:
    """Return the time that the file system gives to a file that is written now."""
    probe = path.with_name(f".{path.name}.{platform.node()}-{os.getpid()}.probe")
    try:
        with probe.open("wb") as file:
            file.write(b".")
            file.flush()
            os.fsync(file.fileno())
            return os.fstat(file.fileno()).st_mtime
    except OSError:
        return time.time()
    finally:
        with contextlib.suppress(OSError):
            probe.unlink()
