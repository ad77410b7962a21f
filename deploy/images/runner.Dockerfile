# SPDX-License-Identifier: Apache-2.0
#
# The init container of every pool: it brings the runner, the sandbox and the language files to an
# image that has never heard of Kiln. Both programs are linked statically, so the image may have
# another C library, or none.
ARG BASE=docker.io/library/debian:bookworm-slim
ARG PROGRAMS
FROM ${PROGRAMS} AS programs

FROM ${BASE}
COPY --from=programs /out/usr/bin/kiln-runner /out/usr/bin/kiln-sandbox /opt/kiln/
COPY --from=programs /out/usr/share/kiln/languages /opt/kiln/languages
COPY deploy/images/inject /usr/bin/inject
# A program with an interpreter is one that needs libraries.
RUN for program in /opt/kiln/kiln-runner /opt/kiln/kiln-sandbox; do \
        $program --help >/dev/null && ! grep -qaF /lib64/ld-linux $program || exit 1; done
USER 10001:10001
ENTRYPOINT ["/usr/bin/inject"]
