"""The PatchCore HTTP service (contract S4): fit, calibrate and infer a region of interest by its name.

A FastAPI router with its own error shape and limits, and a server process for it alone. What it decides lies
in ``serving.core.patchcore``; this package reads requests, bounds them, and writes answers.
"""
