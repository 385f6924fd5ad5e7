# The image of predictor and transformer: no torch, no kfp, no mlflow, no compiler, no package installer.
#
#   docker build -f manifests/docker/serving.Dockerfile -t retiderm-serving:dev .
#
# For a build that is the same to the byte, name the base by digest: --build-arg PYTHON=python:3.11-slim-bookworm@sha256:…
ARG PYTHON=python:3.11-slim-bookworm

FROM ${PYTHON} AS build
# The environment is made without pip, and filled by the builder's own: so it holds what serves and nothing else.
RUN python -m venv --without-pip /opt/venv
COPY serving.lock /tmp/
# Only built packages, each checked against the lock's hash. Nothing is compiled, nothing is resolved anew.
RUN python -m pip --python /opt/venv/bin/python install --no-cache-dir --disable-pip-version-check \
    --no-deps --require-hashes --only-binary=:all: -r /tmp/serving.lock
COPY data /opt/app/data
COPY serving /opt/app/serving
RUN /opt/venv/bin/python -m compileall -q /opt/app

FROM ${PYTHON}
LABEL org.opencontainers.image.title="retiderm-serving" \
      org.opencontainers.image.licenses="Apache-2.0"
RUN python -m pip uninstall --yes --quiet pip \
    && useradd --uid 10001 --user-group --no-create-home --shell /usr/sbin/nologin retiderm
COPY --from=build /opt/venv /opt/venv
COPY --from=build /opt/app /opt/app
COPY LICENSE /opt/app/
ENV PATH=/opt/venv/bin:$PATH \
    PYTHONPATH=/opt/app \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    HOME=/tmp \
    RETIDERM_HOME=/tmp/retiderm
WORKDIR /opt/app
USER 10001:10001
EXPOSE 8080 8081
# For Docker alone; Kubernetes uses the manifests' probes. The port is the one that callers use.
HEALTHCHECK --interval=15s --timeout=5s --start-period=30s --retries=3 \
    CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8080/v2/health/ready', timeout=4)"]
# Predictor and transformer together, for one bundle mounted at /mnt/models. A pod runs them as two containers instead:
# python -m serving.predictor, python -m serving.transformer.
CMD ["python", "-m", "serving.cli", "serve", "--bundle", "/mnt/models", "--host", "0.0.0.0"]
