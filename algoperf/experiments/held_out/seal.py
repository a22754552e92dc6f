"""Commit to a suite before it is published, and verify the commitment afterwards.

An organiser publishes the commitment before submissions close. Once the suite and its salt are
published, everybody can check that the suite is the one that was committed to.

The commitment is the HMAC-SHA256 of the file's bytes under a random salt of 32 bytes (RFC 2104),
so that nobody can find the suite by trying likely ones.
"""

import secrets
from pathlib import Path

from algoperf.data.commitment import commit, is_same
from algoperf.errors import UserError

SALT_BYTES = 32


def seal(path: Path, salt_path: Path) -> str:
    """Return the commitment to a file, under a new salt.

    Args:
        path: The file.
        salt_path: Where the salt is written.

    Raises:
        UserError: The file cannot be read, or the salt exists already or cannot be written.
    """
    content = _read(path)
    salt = secrets.token_hex(SALT_BYTES)
    try:
        with salt_path.open("x") as file:
            file.write(salt + "\n")
    except FileExistsError as error:
        raise UserError(
            f"{salt_path} is there already: {path} was sealed; verify it, or remove the salt"
        ) from error
    except OSError as error:
        raise UserError(f"{salt_path}: cannot be written ({error.strerror})") from error
    return _commitment(content, salt)


def verify(path: Path, salt_path: Path, commitment: str) -> bool:
    """Return whether the file is, byte for byte, the one that was committed to.

    Args:
        path: The file.
        salt_path: The file with the salt.
        commitment: What `seal` returned.

    Raises:
        UserError: A file cannot be read, or the salt is none.
    """
    content, salt = _read(path), _read(salt_path)
    try:
        commitment_now = _commitment(content, salt.decode().strip())
    except ValueError as error:
        raise UserError(f"{salt_path}: no salt of {SALT_BYTES} bytes as hexadecimal") from error
    return is_same(commitment_now, commitment)


def _commitment(content: bytes, salt: str) -> str:
    key = bytes.fromhex(salt)
    if len(key) != SALT_BYTES:
        raise ValueError(salt)
    return commit(content, key)


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from error
