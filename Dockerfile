# Two targets: `light` uses trained classifiers (docs/light.md), `full` trains them, too.
#     docker build --target light --tag unfreeze:light .

FROM python:3.12-slim AS base
# Any user may run it: what is written beside the data goes to places that all can write to.
ENV HOME=/tmp \
    MPLCONFIGDIR=/tmp/matplotlib \
    PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PIP_NO_CACHE_DIR=1 \
    PYTHONUNBUFFERED=1 \
    UNFREEZE_CACHE=/cache
RUN mkdir --mode 1777 /cache /data
WORKDIR /src
COPY pyproject.toml README.md LICENSE ./
COPY src src

FROM base AS full
RUN pip install ".[tensorflow,onnx,serve]"
WORKDIR /data
USER 1000
ENTRYPOINT ["unfreeze"]
CMD ["--help"]

FROM base AS light
RUN pip install ".[light]"
WORKDIR /data
USER 1000
ENTRYPOINT ["unfreeze"]
CMD ["--help"]
