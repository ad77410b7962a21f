# SPDX-License-Identifier: Apache-2.0
#
# The control plane: "kiln api", "kiln scheduler", "kiln migrate" and the commands of operators. It
# runs no task: no compiler, no runner, no sandbox, and no user but its own.
ARG BASE=docker.io/library/debian:bookworm-slim
ARG PROGRAMS
FROM ${PROGRAMS} AS programs

FROM ${BASE}
COPY deploy/images/install /tmp/install
# The libraries of build.Dockerfile, without their headers, and the certificates of public servers.
RUN /tmp/install ca-certificates libcurl4 libhiredis0.14 libjansson4 libmicrohttpd12 libpq5 \
    libprotobuf-c1 librabbitmq4 libsqlite3-0 libssl3 libuv1 libyaml-0-2 libzstd1
COPY --from=programs /out/usr/bin/kiln /usr/bin/kiln
COPY --from=programs /out/usr/share/kiln /usr/share/kiln
RUN kiln --version && ! ldd /usr/bin/kiln | grep 'not found'
USER 10001:10001
WORKDIR /
CMD ["kiln", "--help"]
