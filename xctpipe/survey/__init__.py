"""What must be known of a whole scan before its slabs: averaged flats, bad frames, beam drift, axis.

It reads a few detector rows of every frame, once; the result is kept, so that a run that is continued
corrects every slab with the same numbers.
"""

from xctpipe.survey.flats import before_and_after, frame_weights
from xctpipe.survey.make import SURVEY_ROWS, make_survey
from xctpipe.survey.model import Axis, CenterChoice, Rows, Survey, load, save

__all__ = [
    "SURVEY_ROWS",
    "Axis",
    "CenterChoice",
    "Rows",
    "Survey",
    "before_and_after",
    "frame_weights",
    "load",
    "make_survey",
    "save",
]
