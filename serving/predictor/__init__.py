"""The predictor: KServe models that answer preprocessed images from bundles, all champions in one server."""

import serving.kserve_ext as _kserve_ext  # noqa: F401  (before anything of kserve)
