"""An organiser's secret that draws other validation and test rows than the built-in ones.

The training rows stay what they are. Run folders never hold the secret, but a commitment to it: two
runs saw the same rows if their commitments are equal, and whoever learns the secret afterwards can
verify it against the commitment.

The secret goes through scrypt (RFC 7914) with a fixed salt, which makes each guess cost about a
tenth of a second and 32 MiB. Of its output one half keys the commitment, an HMAC-SHA256 of the
secret, and the other half is the seed of the rows. Neither half tells anything of the other, and
the salt is fixed, so that the same secret has the same commitment on every machine.
"""

import dataclasses
import hashlib
import importlib
import inspect
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from algoperf.data.commitment import commit
from algoperf.errors import UserError

if TYPE_CHECKING:
    from algoperf.workload import WorkloadDefinition

OPTION = "--validation-seed"
PARAMETER = "validation_seed"  # of a loader whose rows are generated
STANDARD_INPUT = "-"
LEAST_CHARACTERS = 16
SHOWN_DIGITS = 12  # of a commitment, where it names a folder or a pool
_HALF_BYTES = 32
_SALT = b"algoperf validation seed"
_COST, _BLOCK = 2**15, 8
_MEMORY_BYTES = 2 * 128 * _COST * _BLOCK  # twice what scrypt needs
_HOW = f"give a FILE, {STANDARD_INPUT} for standard input, env:NAME or text:SECRET"
_taken: dict[str, str] = {}  # from the environment, by name


@dataclasses.dataclass(frozen=True)
class ValidationSeed:
    """A secret, and what follows from it.

    Attributes:
        secret: The organiser's text.
        rows_seed: The seed of the validation and test rows, a whole number of up to 256 bits.
        commitment: What may be published, 64 hexadecimal digits.
    """

    secret: str = dataclasses.field(repr=False)
    rows_seed: int = dataclasses.field(repr=False)
    commitment: str

    @property
    def short(self) -> str:
        """The first digits of the commitment."""
        return self.commitment[:SHOWN_DIGITS]


def derive(secret: str) -> ValidationSeed:
    """Return what follows from a secret.

    Raises:
        UserError: It is so short that it could be guessed.
    """
    if len(secret) < LEAST_CHARACTERS:
        raise UserError(
            f"{OPTION}: the secret has {len(secret)} characters, and one of fewer than "
            f"{LEAST_CHARACTERS} can be guessed; take random ones, as `openssl rand -hex 32` prints"
        )
    content = secret.encode()
    derived = hashlib.scrypt(
        content,
        salt=_SALT,
        n=_COST,
        r=_BLOCK,
        p=1,
        maxmem=_MEMORY_BYTES,
        dklen=2 * _HALF_BYTES,
    )
    commitment = commit(content, derived[:_HALF_BYTES])
    return ValidationSeed(secret, int.from_bytes(derived[_HALF_BYTES:], "big"), commitment)


def resolve(given: object) -> ValidationSeed | None:
    """Return the secret that is given in one of its forms; None for None.

    Args:
        given: A `ValidationSeed`, or a text: the path of a file, '-' for standard input,
            'env:NAME' for an environment variable, or 'text:SECRET'. Blanks and line ends around
            the secret do not count.

    Raises:
        UserError: It cannot be read, or could be guessed. The message repeats nothing of it, since
            what is mistaken for a path may be the secret itself.
    """
    if given is None or isinstance(given, ValidationSeed):
        return given
    if not isinstance(given, str | Path):
        raise UserError(f"{OPTION}: a {type(given).__name__} was given; {_HOW}")
    return derive(_read(str(given)).strip())


def _read(given: str) -> str:
    if given == STANDARD_INPUT:
        return sys.stdin.read()
    kind, colon, rest = given.partition(":")
    if colon and kind == "text":
        return rest
    if colon and kind == "env":
        return _from_environment(rest)
    try:
        return Path(given).read_text("utf-8")
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "no text in UTF-8"
        raise UserError(f"{OPTION}: no file that can be read ({reason}); {_HOW}") from error


def _from_environment(name: str) -> str:
    """Take a variable out of the environment, so that no process started from here inherits it.

    Asked again, the same value is returned, unless the variable was set anew.
    """
    value = os.environ.pop(name, None)
    if value is not None:
        _taken[name] = value
    if name not in _taken:
        raise UserError(f"{OPTION}: there is no such environment variable; {_HOW}")
    return _taken[name]


def as_input(secret: ValidationSeed | None) -> str | None:
    """Return what a process that is told '-' reads from standard input; None without a secret."""
    return None if secret is None else secret.secret


def seed_words(split: str, validation_seed: int | None) -> tuple[int, ...]:
    """Return what a generator appends to the seed of a split's rows: nothing for the usual rows.

    Args:
        split: 'train', whose rows are the same whatever the secret, or another split.
        validation_seed: The seed that was derived from a secret; None without one.
    """
    return () if validation_seed is None or split == "train" else (validation_seed,)


def check(definition: "WorkloadDefinition", source: str) -> None:
    """Check that a workload can draw its rows by a secret.

    Args:
        definition: The workload.
        source: 'builtin', 'hub' or a folder's path.

    Raises:
        UserError: It cannot, and why.
    """
    if source != "builtin":
        raise UserError(
            f"{OPTION} with --data {source}: rows that are read can be known to everybody, and no "
            "secret draws others; leave one of them out"
        )
    from algoperf.workload import outside

    with outside.blaming(definition):
        load = importlib.import_module(f"{definition.package}.data").load
    if PARAMETER not in inspect.signature(load).parameters:
        raise UserError(
            f"{OPTION}: {definition.name} has the same rows for everybody, since load in its "
            f"data.py takes no {PARAMETER} (docs/organise.md)"
        )
