# SPDX-License-Identifier: Apache-2.0
#
# C and C++.
ARG BASE=docker.io/library/debian:bookworm-slim
FROM ${BASE}
COPY deploy/images/install /tmp/install
RUN /tmp/install gcc libc6-dev g++
USER 10001:10001
