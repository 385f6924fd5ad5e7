"""Where labelled images come from, one small file a kind: ``open_source("KIND:PATH?option=value")``."""

from data.sources.base import Label, Licence, Options, Sample, Source, class_name
from data.sources.registry import KINDS, Spec, open_source, parse_spec

__all__ = [
    "KINDS",
    "Label",
    "Licence",
    "Options",
    "Sample",
    "Source",
    "Spec",
    "class_name",
    "open_source",
    "parse_spec",
]
