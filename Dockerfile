# The image of the platform: it serves, trains, controls, migrates, and runs the database of try-outs.
#
#   docker build --tag ml-platform:0.1.0 .
#
# Build arguments:
#   BASE_IMAGE     an image of Debian with Python 3.11 or newer as `python`, with pip and venv
#   PIP_INDEX_URL  the package index; default: that of the base image's pip
ARG BASE_IMAGE=python:3.11-slim

FROM ${BASE_IMAGE} AS packages
ARG PIP_INDEX_URL
WORKDIR /src
# pip is not needed in a pod.
RUN python -m venv --without-pip /opt/mlcore
COPY requirements-image.lock ./
RUN python -m pip --python /opt/mlcore/bin/python install --no-cache-dir --quiet --require-hashes \
    --requirement requirements-image.lock

FROM packages AS code
COPY pyproject.toml README.md LICENSE ./
COPY ml_core ml_core
COPY deployments deployments
COPY k8s k8s
# What Ray starts as HAProxy; see ml_core/platform/ray_cluster.py.
RUN python -m pip --python /opt/mlcore/bin/python install --no-cache-dir --quiet --no-deps --prefix /opt/code . \
 && printf '#!/bin/sh\nexec /opt/mlcore/bin/python -Im deployments.haproxy "$@"\n' > /opt/code/bin/mlcore-haproxy \
 && chmod 0755 /opt/code/bin/mlcore-haproxy

FROM ${BASE_IMAGE}
# KubeRay's probes and Ray's reporter call wget and ps; LightGBM needs OpenMP.
RUN apt-get update -qq \
 && DEBIAN_FRONTEND=noninteractive apt-get install -qq --yes --no-install-recommends libgomp1 procps wget > /dev/null \
 && rm -rf /var/lib/apt/lists/* \
 && useradd --uid 1000 --home-dir /tmp --no-create-home mlcore \
 && install --directory --owner=1000 --group=1000 --mode=0700 /var/lib/mlcore
# Two layers, so that a change of the code is a layer of a few megabytes.
COPY --from=packages /opt/mlcore /opt/mlcore
COPY --from=code /opt/code /opt/mlcore
# /tmp and MLCORE_HOME are the only folders that are written to.
ENV PATH=/opt/mlcore/bin:$PATH \
    MLCORE_HOME=/var/lib/mlcore \
    RAY_SERVE_HAPROXY_BINARY_PATH=/opt/mlcore/bin/mlcore-haproxy \
    PYTHONUNBUFFERED=1
USER 1000:1000
WORKDIR /tmp
CMD ["mlcore", "--help"]
