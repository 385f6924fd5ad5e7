"""The transformer: image files in; quality, answer and explanation out; V1, V2 and gRPC (contract S5)."""

import serving.kserve_ext as _kserve_ext  # noqa: F401  (before anything of kserve)
