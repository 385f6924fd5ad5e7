"""PatchCore without torch: coreset, memory and its files, search, calibration, scores, extractor.

Distances are squared L2 between unit vectors everywhere, so they and all scores lie in [0, 4].
"""
