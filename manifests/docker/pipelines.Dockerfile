# The image of the pipeline's steps, of distributed training and of the MLflow server: the whole lock, CUDA included, so
# that every step runs the very versions that the tests ran.
#
#   docker build -f manifests/docker/pipelines.Dockerfile -t retiderm-pipelines:dev .
ARG PYTHON=python:3.11-slim-bookworm

FROM ${PYTHON} AS build
RUN python -m venv --without-pip /opt/venv
COPY requirements.lock /tmp/
# uv installs some 8 GB in a fraction of pip's time. The lock pins uv and setuptools, which builds the few packages that
# come as source; without build isolation nothing is fetched that the lock doesn't name.
RUN awk '/^[^ #]/ {taken = /^(setuptools|uv)==/} taken && !/^ *#/' /tmp/requirements.lock > /tmp/first.txt \
    && python -m pip install --no-cache-dir --disable-pip-version-check --no-deps --require-hashes -r /tmp/first.txt \
    && uv pip install --python /opt/venv/bin/python --no-cache --no-deps --require-hashes -r /tmp/first.txt \
    && uv pip sync --python /opt/venv/bin/python --no-cache --no-build-isolation --require-hashes /tmp/requirements.lock
WORKDIR /opt/app
COPY pyproject.toml README.md LICENSE ./
COPY data data
COPY serving serving
COPY training training
COPY components components
COPY pipelines pipelines
# Editable, so that the code's digest is over these files.
RUN uv pip install --python /opt/venv/bin/python --no-cache --no-deps --no-build-isolation --editable . \
    && /opt/venv/bin/python -m compileall -q /opt/app

FROM ${PYTHON}
LABEL org.opencontainers.image.title="retiderm-pipelines" \
      org.opencontainers.image.licenses="Apache-2.0"
RUN python -m pip uninstall --yes --quiet pip \
    && useradd --uid 10001 --user-group --no-create-home --shell /usr/sbin/nologin retiderm
COPY --from=build /opt/venv /opt/venv
COPY --from=build /opt/app /opt/app
ENV PATH=/opt/venv/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    HOME=/tmp \
    RETIDERM_HOME=/tmp/retiderm \
    MLFLOW_DISABLE_TELEMETRY=true \
    GX_ANALYTICS_ENABLED=false \
    NVIDIA_VISIBLE_DEVICES=all \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility
WORKDIR /tmp
USER 10001:10001
# A step is healthy while it runs; a server made from this image (MLflow) has probes of its own.
HEALTHCHECK NONE
CMD ["retiderm", "--help"]
