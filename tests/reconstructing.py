"""The stage reconstruct alone, for tests that are about nothing else: labels and report would take longer."""

from functools import partial

from xctpipe.run import run as run_stages

run = partial(run_stages, stages=("reconstruct",))
