# A server of S3 for the tests of two nodes.
ARG BASE_IMAGE=python:3.11-slim
FROM ${BASE_IMAGE}
ARG MOTO
RUN python -m venv /opt/s3 && /opt/s3/bin/python -m pip install --quiet "moto[server]==${MOTO}"
USER 1000:1000
ENV HOME=/tmp
CMD ["/opt/s3/bin/moto_server", "--host", "0.0.0.0", "--port", "5000"]
