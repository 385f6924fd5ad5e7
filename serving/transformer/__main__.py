"""``python -m serving.transformer``: the transformer's process."""

from __future__ import annotations

import sys

from data.errors import RetidermError
from data.image import DecodeLimits
from serving.options import parser, set_up, source_of


def main() -> None:
    """Serve until SIGTERM; exit 1 with the reason when it can't."""
    options = parser("Answer image files: KServe V1, V2 and gRPC in front of a predictor.")
    options.add_argument(
        "--predictor_host", "--predictor", default="127.0.0.1:8083", help="the predictor's gRPC, host:port"
    )
    options.add_argument("--predictor-timeout-s", type=float, default=30.0)
    options.add_argument("--workers", type=int, help="images prepared at once (default: the CPU quota)")
    options.add_argument("--max-requests", type=int, default=24, help="requests at once; beyond: 503")
    options.add_argument("--max-batch", type=int, default=32, help="images a request")
    options.add_argument("--max-image-mb", type=int, default=20, help="largest image file, in MiB")
    options.add_argument("--max-image-megapixels", type=int, default=50)
    chosen, _ = options.parse_known_args()
    set_up(chosen)

    from serving.kserve_ext.server import ServerSettings
    from serving.transformer.app import TransformerSettings, run

    server = ServerSettings(
        host=chosen.host,
        http_port=chosen.http_port,
        grpc_port=chosen.grpc_port,
        max_body_bytes=chosen.max_body_mb * 2**20,
        grace_s=chosen.grace_s,
    )
    settings = TransformerSettings(
        predictor=chosen.predictor_host,
        timeout_s=chosen.predictor_timeout_s,
        max_requests=chosen.max_requests,
        max_batch=chosen.max_batch,
        workers=chosen.workers,
        limits=DecodeLimits(chosen.max_image_mb * 2**20, chosen.max_image_megapixels * 1_000_000),
        interval_s=chosen.poll_s,
        linger_s=chosen.linger_s,
    )
    try:
        run(source_of(chosen), server, settings)
    except RetidermError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
