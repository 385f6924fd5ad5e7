"""The quality gate: is a photograph good enough for a model to look at?"""

from data.quality.gate import Prepared, QualityVerdict, assess, prepare
from data.quality.profile import PROFILES, QualityProfile, load_profile

__all__ = ["PROFILES", "Prepared", "QualityProfile", "QualityVerdict", "assess", "load_profile", "prepare"]
