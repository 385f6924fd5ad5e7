"""``python -m serving.predictor``: the predictor's process."""

from __future__ import annotations

import os
import sys

from data.errors import RetidermError
from data.provenance import cpu_quota
from serving.options import parser, set_up, source_of


def main() -> None:
    """Serve until SIGTERM; exit 1 with the reason when it can't."""
    options = parser("Serve bundles to a transformer: KServe V2 over REST and gRPC.")
    options.add_argument(
        "--precision",
        default="auto",
        help="one of the cards' approved precisions; auto: as retiderm tune chose on such a host, else fp32",
    )
    options.add_argument("--threads", type=int, help="threads of one inference (default: the CPU quota)")
    options.add_argument("--workers", type=int, default=1, help="inferences at once")
    options.add_argument("--max-waiting", type=int, default=32, help="requests that may wait; beyond: 503")
    options.add_argument("--max-batch", type=int, default=32, help="images a request")
    chosen, _ = options.parse_known_args()
    set_up(chosen)
    # What searches a memory would count the host's cores, not the container's; read when it is loaded.
    os.environ.setdefault("OMP_NUM_THREADS", str(chosen.threads or cpu_quota()))

    from serving.kserve_ext.server import ServerSettings
    from serving.predictor.app import PredictorSettings, run

    server = ServerSettings(
        host=chosen.host,
        http_port=chosen.http_port,
        grpc_port=chosen.grpc_port,
        max_body_bytes=chosen.max_body_mb * 2**20,
        grace_s=chosen.grace_s,
    )
    settings = PredictorSettings(
        precision=chosen.precision,
        threads=chosen.threads,
        workers=chosen.workers,
        max_waiting=chosen.max_waiting,
        max_batch=chosen.max_batch,
        interval_s=chosen.poll_s,
        # Longer than the transformer, which still needs it for what is in flight.
        linger_s=2 * chosen.linger_s,
    )
    try:
        run(source_of(chosen), server, settings)
    except RetidermError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
