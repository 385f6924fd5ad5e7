"""A model behind KServe as its tutorials do it: V1 JSON, pixels as numbers, ``predict`` on the event loop.

Run: ``python -m benchmarks.kserve_default MODEL.onnx PORT``. What ``benchmarks.serving`` compares ours with.
"""

from __future__ import annotations

import sys
from typing import Any


def main() -> None:
    """Serve one ONNX file as the model ``plain``."""
    path, port = sys.argv[1], int(sys.argv[2])
    sys.argv = sys.argv[:1]

    import numpy as np
    import onnxruntime
    from kserve import Model, ModelServer

    from data.provenance import cpu_quota

    class Plain(Model):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__("plain")
            options = onnxruntime.SessionOptions()
            options.intra_op_num_threads = cpu_quota()
            options.add_session_config_entry("session.force_spinning_stop", "1")
            self.session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
            self.ready = True

        def predict(self, payload: Any, headers: Any = None, response_headers: Any = None) -> Any:
            pixels = np.asarray(payload["instances"], dtype=np.float32).astype(np.uint8)
            logits, cam = self.session.run(["logits", "cam"], {"image": pixels})
            return {
                "predictions": [
                    {"logits": a.tolist(), "cam": b.tolist()} for a, b in zip(logits, cam, strict=True)
                ]
            }

    ModelServer(http_port=port, enable_grpc=False).start([Plain()])


if __name__ == "__main__":
    main()
