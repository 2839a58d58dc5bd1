"""Ctrl-C that is always heard."""

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def heard_interrupts() -> Iterator[None]:
    """Let no Ctrl-C be lost: one that comes while Python collects garbage would be printed and forgotten."""
    before = sys.unraisablehook
    coming: list[threading.Timer] = []

    def hook(args: "sys.UnraisableHookArgs") -> None:
        if not issubclass(args.exc_type, KeyboardInterrupt):
            before(args)
            return
        # from a thread, a moment later: here it would be lost once more
        again = threading.Timer(0.05, os.kill, (os.getpid(), signal.SIGINT))
        again.daemon = True
        coming.append(again)
        again.start()

    sys.unraisablehook = hook
    try:
        yield
    finally:
        sys.unraisablehook = before
        for each in coming:  # the command has ended: there is nothing left to interrupt
            each.cancel()
