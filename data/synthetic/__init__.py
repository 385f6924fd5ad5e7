"""Drawn fundus, lesion and face images: synthetic, labelled so everywhere, the same for the same seed.

They are for demonstrations and tests. A model trained on them says nothing about patients.
"""

from data.synthetic.drawing import SUBJECTS, Drawing, draw, pixels, plan

__all__ = ["SUBJECTS", "Drawing", "draw", "pixels", "plan"]
