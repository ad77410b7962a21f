# SPDX-License-Identifier: Apache-2.0
#
# Kiln's programs, built in the system that they will run in. The images of Kiln take them from
# /out; this one is not shipped.
ARG BASE=docker.io/library/debian:bookworm-slim
FROM ${BASE}
COPY tools/install-deps.sh /src/tools/install-deps.sh
RUN /src/tools/install-deps.sh build
COPY meson.build meson_options.txt openapi.yaml /src/
COPY deploy/systemd /src/deploy/systemd
COPY languages /src/languages
COPY tools/include-trees.sh tools/openapi-to-c.py /src/tools/
COPY src /src/src
COPY tests/meson.build /src/tests/meson.build
COPY bench /src/bench
RUN meson setup /build /src --buildtype=release --strip --prefix=/usr -Dtests=disabled \
 && ninja -C /build kiln kiln-runner kiln-sandbox kiln-zygote.so kiln-zygote-ruby.so \
 && DESTDIR=/out meson install -C /build --no-rebuild
