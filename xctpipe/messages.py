"""Where messages of the package go: to the terminal, and to the log of a run folder."""

import logging
import sys
from pathlib import Path

from xctpipe.errors import BadRecipe

log = logging.getLogger("xctpipe")


class _Console(logging.Handler):
    """Messages on stderr, looked up at each message: a progress bar replaces it while it is drawn."""

    def emit(self, record: logging.LogRecord) -> None:
        prefix = "" if record.levelno <= logging.INFO else f"{record.levelname.lower()}: "
        sys.stderr.write(f"{prefix}{record.getMessage()}\n")


def start_log(run_folder: Path | None = None) -> None:
    """Messages go to stderr, and into the run folder's log where there is one; BadRecipe where it cannot."""
    log.setLevel(logging.INFO)
    # what dask has to say of its own closing is not for the user; failures of slabs come as exceptions
    logging.getLogger("asyncio").setLevel(logging.CRITICAL)
    logging.getLogger("distributed").setLevel(logging.CRITICAL)
    if not any(isinstance(handler, _Console) for handler in log.handlers):
        log.addHandler(_Console())
    if run_folder is not None:
        try:
            run_folder.mkdir(parents=True, exist_ok=True)
            file = logging.FileHandler(run_folder / "log.txt", encoding="utf-8")
        except OSError as err:
            raise BadRecipe(
                f"run_folder = {run_folder}: cannot be written ({err.strerror}); choose another"
            ) from err
        file.handleError = lambda record: None  # type: ignore[method-assign]  # a full disk is said elsewhere
        file.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
        log.addHandler(file)
