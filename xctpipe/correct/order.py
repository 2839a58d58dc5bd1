"""Orders of corrections that give wrong results, refused before anything is read."""

from collections.abc import Sequence
from itertools import combinations

from xctpipe.errors import BadRecipe
from xctpipe.steps import BoundStep

_OF_PIXELS = ("beam", "shifts_px")


def check_order(
    chain: Sequence[BoundStep], *, phase: BoundStep | None = None, log_absorption: bool = False
) -> None:
    """BadRecipe for a chain whose order is known to be bad, with the reason.

    Ring filters before two halves of a turn are joined leave mirrored ghosts; what knows pixels of the
    detector, or moves the picture on it, must come while the picture is still that of the detector; phase
    retrieval needs intensities, and spreads bright specks and rings over its surroundings.
    """
    for first, second in combinations([*chain, *([phase] if phase else [])], 2):
        reason = _why_not(first, second)
        if reason:
            raise BadRecipe(f"correct: {second.name!r} after {first.name!r}: {reason}")
    retrievals = [step.name for step in chain if step.name == "paganin"] + ([phase.name] if phase else [])
    if len(retrievals) > 1:
        raise BadRecipe(
            "correct: phase retrieval twice: give [phase] for a second volume, or the step 'paganin' for one"
        )
    if log_absorption:
        _check_needs_no_beam(chain)
    if retrievals and log_absorption:
        raise BadRecipe(
            "raw.log_absorption = true with phase retrieval: it needs intensities, before the logarithm; "
            "leave out [phase] or give the raw frames"
        )
    twice = [step.name for step in chain if step.reshapes]
    if len(twice) > 1:
        raise BadRecipe(f"correct: {' and '.join(twice)}: a full turn can be joined only once")


def _check_needs_no_beam(chain: Sequence[BoundStep]) -> None:
    for step in chain:
        if "beam" in step.asks:
            raise BadRecipe(
                f"raw.log_absorption = true with the step {step.name!r}: it looks at the flats, which such "
                "data do not have; leave it out"
            )


def _why_not(first: BoundStep, second: BoundStep) -> str:
    if first.name == second.name == "frame_shifts":
        return "frames are moved back only once; leave one out"
    if first.name == "extend_360" and second.name == "paganin":
        return "it needs intensities, and projections are weighted by then; take 'stitch_360'"
    reason = _why_exchange(first, second)
    return f"{reason}; exchange them" if reason else ""


def _why_exchange(first: BoundStep, second: BoundStep) -> str:
    if first.reshapes and second.moves:
        return "frames are moved before they are joined"
    if first.reshapes and set(second.asks) & set(_OF_PIXELS):
        return "it needs the pixels of the detector, which are no more"
    if second.name == "stitch_360" and first.name.startswith("stripes_"):
        return "what a ring filter takes away would be mirrored about the axis"
    if first.name == "paganin" and second.name == "zingers":
        return "phase retrieval spreads a zinger over its surroundings"
    if first.name == "paganin" and second.moves:
        return "frames are moved before their phase is retrieved"
    return _why_not_moved(first, second) if first.moves else ""


def _why_not_moved(first: BoundStep, second: BoundStep) -> str:
    if "beam" in second.asks or second.name == "double_flat_field":
        return "it needs the pixels of the detector, from which the picture was moved"
    if second.name == "distortion" and first.name != "distortion":
        return "the lens stands before the detector, so its distortion is undone first"
    return ""
