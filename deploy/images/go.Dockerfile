# SPDX-License-Identifier: Apache-2.0
#
# Go.
ARG BASE=docker.io/library/debian:bookworm-slim
FROM ${BASE}
COPY deploy/images/install /tmp/install
RUN /tmp/install golang-go gcc libc6-dev
USER 10001:10001
