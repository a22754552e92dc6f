"""Commit to something secret, so that everybody can verify later that it was that."""

import hashlib
import hmac


def commit(content: bytes, key: bytes) -> str:
    """Return the HMAC-SHA256 (RFC 2104) of some content, 64 hexadecimal digits.

    Args:
        content: What is committed to.
        key: Bytes that nobody can guess, so that nobody finds the content by trying likely ones.
    """
    return hmac.new(key, content, hashlib.sha256).hexdigest()


def is_same(commitment: str, given: str) -> bool:
    """Return whether a commitment is the one that was published, in digits of either case."""
    return hmac.compare_digest(commitment.encode(), given.strip().lower().encode())
