# SPDX-License-Identifier: Apache-2.0
#
# Bash, Lua and Perl: small enough to share an image.
ARG BASE=docker.io/library/debian:bookworm-slim
FROM ${BASE}
COPY deploy/images/install /tmp/install
RUN /tmp/install bash lua5.4 perl
USER 10001:10001
