# SPDX-License-Identifier: Apache-2.0
#
# Ruby.
ARG BASE=docker.io/library/debian:bookworm-slim
FROM ${BASE}
COPY deploy/images/install /tmp/install
RUN /tmp/install ruby
USER 10001:10001
