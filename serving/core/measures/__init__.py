"""Classical measures of the skin of a face: tone, texture, wrinkles, dark circles, redness, shine."""

from serving.core.measures.answer import KINDS, Kind, Measures
from serving.core.measures.balance import WhiteBalance
from serving.core.measures.measure import measure_face

__all__ = ["KINDS", "Kind", "Measures", "WhiteBalance", "measure_face"]
