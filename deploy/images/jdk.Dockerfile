# SPDX-License-Identifier: Apache-2.0
#
# Java.
ARG BASE=docker.io/library/debian:bookworm-slim
FROM ${BASE}
COPY deploy/images/install /tmp/install
RUN /tmp/install default-jdk-headless
USER 10001:10001
