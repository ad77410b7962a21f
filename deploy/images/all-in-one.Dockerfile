# SPDX-License-Identifier: Apache-2.0
#
# Everything on one machine, as an ordinary user: the server, a runner, and all languages.
#
#   docker run --rm --init -p 127.0.0.1:8080:8080 -v kiln:/var/lib/kiln \
#     --cap-drop ALL --security-opt no-new-privileges \
#     --security-opt seccomp=deploy/kubernetes/seccomp/runner.json \
#     --security-opt systempaths=unconfined --security-opt apparmor=unconfined \
#     localhost/kiln-all-in-one:0.1.0
#
# What the flags are for, and what is in force then: docs/OPERATIONS.md, "In a container".
ARG BASE=docker.io/library/debian:bookworm-slim
ARG PROGRAMS
FROM ${PROGRAMS} AS programs

FROM ${BASE}
COPY deploy/images/install /tmp/install
RUN /tmp/install ca-certificates libcurl4 libhiredis0.14 libjansson4 libmicrohttpd12 libpq5 \
    libprotobuf-c1 librabbitmq4 libsqlite3-0 libssl3 libuv1 libyaml-0-2 libzstd1 \
    bash default-jdk-headless g++ gcc golang-go libc6-dev lua5.4 nodejs perl php-cli python3 ruby \
 && PYTHONHASHSEED=0 python3 -m compileall -q -f -j 1 --invalidation-mode unchecked-hash /usr/lib/python3* \
 && mkdir /var/lib/kiln && chown 10001:10001 /var/lib/kiln && chmod 700 /var/lib/kiln
COPY --from=programs /out/usr/bin/ /usr/bin/
COPY --from=programs /out/usr/share/kiln /usr/share/kiln
RUN kiln --version && ! ldd /usr/bin/kiln | grep 'not found'
USER 10001:10001
VOLUME /var/lib/kiln
EXPOSE 8080
# It listens on all addresses of the container, of which -p tells who reaches them. With keys
# ("kiln keys add") it lets in only who has one, whatever is said here.
CMD ["kiln", "serve", "--data-dir=/var/lib/kiln", "--listen=0.0.0.0:8080", "--open"]
