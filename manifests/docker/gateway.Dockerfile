# The image of the gateway: the REST services of apps, their store and the review page. No torch, no kfp, no mlflow.
#
#   docker build -f manifests/docker/gateway.Dockerfile -t retiderm-gateway:dev .
#
# For a build that is the same to the byte, name the base by digest: --build-arg PYTHON=python:3.11-slim-bookworm@sha256:…
ARG PYTHON=python:3.11-slim-bookworm

FROM ${PYTHON} AS build
RUN python -m venv --without-pip /opt/venv
COPY gateway.lock /tmp/
# Only built packages, each checked against the lock's hash. Nothing is compiled, nothing is resolved anew.
RUN python -m pip --python /opt/venv/bin/python install --no-cache-dir --disable-pip-version-check \
    --no-deps --require-hashes --only-binary=:all: -r /tmp/gateway.lock
COPY data /opt/app/data
COPY serving /opt/app/serving
RUN /opt/venv/bin/python -m compileall -q /opt/app

FROM ${PYTHON}
LABEL org.opencontainers.image.title="retiderm-gateway" \
      org.opencontainers.image.licenses="Apache-2.0"
RUN python -m pip uninstall --yes --quiet pip \
    && useradd --uid 10001 --user-group --no-create-home --shell /usr/sbin/nologin retiderm \
    && install -d -o 10001 -g 10001 /var/lib/retiderm
COPY --from=build /opt/venv /opt/venv
COPY --from=build /opt/app /opt/app
COPY LICENSE /opt/app/
ENV PATH=/opt/venv/bin:$PATH \
    PYTHONPATH=/opt/app \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    HOME=/tmp \
    RETIDERM_HOME=/var/lib/retiderm \
    BACKSERVER_HOST=0.0.0.0
WORKDIR /opt/app
USER 10001:10001
VOLUME /var/lib/retiderm
EXPOSE 8000
HEALTHCHECK --interval=15s --timeout=5s --start-period=30s --retries=3 \
    CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8000/livez', timeout=4)"]
# Listening beyond the container, it refuses to start while nobody has a token: python -m serving.gateway.cli create NAME
CMD ["python", "-m", "serving.gateway"]
