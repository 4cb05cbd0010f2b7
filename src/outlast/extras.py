"""What is installed only on demand: ``pip install "outlast[EXTRA]"``."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from outlast.errors import CannotLoad


@contextmanager
def needed(extra: str, what: str) -> Iterator[None]:
    """Import what belongs to an extra, in this block.

    Args:
        extra: its name, as ``server``.
        what: who needs it, as ``"the server"``.

    Raises:
        CannotLoad: a package of it is not there.
    """
    try:
        yield
    except ImportError as error:
        is_missing = isinstance(error, ModuleNotFoundError)
        raise CannotLoad(
            f"{what}: not all that it needs is installed",
            why=f"there is no {error.name}" if is_missing else str(error),
            do=f'pip install "outlast[{extra}]"',
        ) from None


__all__ = ["needed"]
