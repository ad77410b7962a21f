# SPDX-License-Identifier: Apache-2.0
#
# Python. The image's files all get one time, which the compiled modules of Debian's packages then
# do not agree with: they would be compiled again at each start. So they are compiled once more, not
# to be held against a time.
ARG BASE=docker.io/library/debian:bookworm-slim
FROM ${BASE}
COPY deploy/images/install /tmp/install
RUN /tmp/install python3 \
 && PYTHONHASHSEED=0 python3 -m compileall -q -f -j 1 --invalidation-mode unchecked-hash /usr/lib/python3*
USER 10001:10001
