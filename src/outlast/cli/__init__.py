"""The command line: parses, calls the engine or the store, and shows.

``outlast --version`` answers before anything is imported; every command imports what it needs when
it runs.
"""

from __future__ import annotations

import gc
import sys
from typing import Final

_GC_DEFAULT: Final = 700


def main() -> None:
    """Run the command line; the entry point ``outlast``."""
    if sys.argv[1:] in (["--version"], ["-V"]):
        from outlast import __version__

        try:
            print(f"outlast {__version__}", flush=True)
        except OSError as error:
            from outlast.cli.app import unwritten
            from outlast.cli.session import Session

            sys.exit(unwritten(Session(words=sys.argv[1:]), error))
        return
    if gc.get_threshold()[0] == _GC_DEFAULT:  # as the engine does: imports make no rubbish
        gc.set_threshold(25_000, *gc.get_threshold()[1:])
    from outlast.cli.app import run

    sys.exit(run(sys.argv[1:]))
