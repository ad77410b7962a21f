# SPDX-License-Identifier: Apache-2.0
"""What an earlier version said: tests/recorded/1 has both directions of a conversation between a
scheduler and a runner of version 0.1.0, byte by byte. It stays as it is: whoever changes the
protocol so that this fails has broken rolling from one version to the next."""

import os
import struct

import pytest

import wire
from runner import ROOT, STDERR, STDOUT, Runner

RECORDED = os.path.join(ROOT, "tests", "recorded", "1")


def frames(name):
    with open(os.path.join(RECORDED, name), "rb") as f:
        data = f.read()
    found = []
    while data:
        length = struct.unpack(">I", data[:4])[0]
        found.append(data[4:4 + length])
        assert len(found[-1]) == length
        data = data[4 + length:]
    return found


def with_unknown_fields(frame):
    """The same from a later version: its message has a number and a text that nobody knows yet."""
    key, at = wire._read_varint(frame, 0)
    _, at = wire._read_varint(frame, at)
    body = frame[at:] + wire._varint(1000 << 3) + b"\x07" + wire._varint(1001 << 3 | 2) + b"\x05later"
    return wire._varint(key) + wire._varint(len(body)) + body


def kinds(all_frames):
    return [kind for kind, _ in all_frames if kind != "heartbeat"]


@pytest.mark.parametrize("later", [False, True], ids=["recorded", "with unknown fields"])
def test_runner_understands_a_recorded_scheduler(later):
    expected = kinds(map(wire.unpack_frame, frames("runner.frames")))
    assert expected[:3] == ["hello", "accepted", "compiled"] and expected[-1] == "done"
    runner = Runner(hello=False, slots=1)
    try:
        for frame in frames("scheduler.frames"):
            frame = with_unknown_fields(frame) if later else frame
            runner.connection.send_bytes(struct.pack(">I", len(frame)) + frame)
        got = []
        while not got or got[-1][0] != "done":
            frame = runner.connection.receive(60)
            assert frame, runner.log_text()
            got.append(frame)
        assert kinds(got) == expected
        output = {stream: b"".join(m["bytes"] for kind, m in got
                                   if kind == "output" and m["stream"] == stream)
                  for stream in (STDOUT, STDERR)}
        assert output == {STDOUT: b"144 recorded\n", STDERR: b"done\n"}
        done = dict(got)["run_done"]["result"]
        assert (done["exit_code"], done["outcome"]) == (3, 3)
        assert not dict(got)["done"]["error_code"]
    finally:
        runner.close()
