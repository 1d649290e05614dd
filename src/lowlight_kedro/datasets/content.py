"""What a file holds, whatever its name and time."""

import hashlib
from functools import lru_cache
from pathlib import Path

BLOCK = 1 << 20  # bytes read at a time


@lru_cache(maxsize=1 << 16)
def _hash_of(path: Path, size: int, changed_ns: int) -> str:
    """Several pipelines of one run ask for it: read once while size and time stay."""
    digest = hashlib.blake2b(digest_size=16)
    with path.open("rb") as file:
        while block := file.read(BLOCK):
            digest.update(block)
    return digest.hexdigest()


def content_hash(path: Path) -> str:
    """BLAKE2b of the file's bytes, 32 hexadecimal digits.

    Raises:
        OSError: the file cannot be read.
    """
    state = path.stat()
    return _hash_of(path, state.st_size, state.st_mtime_ns)
