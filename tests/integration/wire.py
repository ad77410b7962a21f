# SPDX-License-Identifier: Apache-2.0
"""Frames of the runner protocol, from the schema itself: reads kiln.proto and packs and unpacks
dictionaries by it. Only what kiln.proto uses: scalars, strings, bytes, messages, repeated, oneof."""

import os
import re
import socket
import struct
import time

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
PROTO = os.path.join(ROOT, "src", "wire", "proto", "kiln.proto")


def _read_schema(path):
    with open(path, encoding="utf-8") as f:
        text = re.sub(r"//[^\n]*", "", f.read())
    schema = {}
    for name, body in re.findall(r"message (\w+) \{((?:[^{}]|\{[^{}]*\})*)\}", text):
        fields = re.findall(r"(repeated )?(\w+) (\w+) = (\d+);", body)
        schema[name] = {field: (int(number), kind, bool(repeated))
                        for repeated, kind, field, number in fields}
    return schema


SCHEMA = _read_schema(PROTO)
SIGNED = ("sint32", "sint64")


def _varint(n):
    n &= (1 << 64) - 1
    out = bytearray()
    while n > 0x7F:
        out.append(n & 0x7F | 0x80)
        n >>= 7
    out.append(n)
    return bytes(out)


def _pack_field(number, kind, value):
    if kind in SCHEMA or kind in ("string", "bytes"):
        data = pack(kind, value) if kind in SCHEMA else value
        data = data.encode() if isinstance(data, str) else data
        return _varint(number << 3 | 2) + _varint(len(data)) + data
    if kind in SIGNED:
        value = value << 1 ^ value >> 63
    return _varint(number << 3) + _varint(int(value))


def pack(name, values):
    out = bytearray()
    for field, value in values.items():
        number, kind, repeated = SCHEMA[name][field]
        for one in value if repeated else [value]:
            out += _pack_field(number, kind, one)
    return bytes(out)


def _read_varint(data, at):
    n = shift = 0
    while True:
        byte = data[at]
        at += 1
        n |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            return n, at


def _unpack_value(kind, data):
    if kind in SCHEMA:
        return unpack(kind, data)
    return data.decode() if kind == "string" else data


def unpack(name, data):
    """Fields that are not on the wire have their default; absent messages are None."""
    by_number = {number: (field, kind, repeated)
                 for field, (number, kind, repeated) in SCHEMA[name].items()}
    out = {field: [] if repeated else {"string": "", "bytes": b""}.get(kind, None if kind in SCHEMA
                                                                        else 0)
           for field, (_, kind, repeated) in SCHEMA[name].items()}
    at = 0
    while at < len(data):
        key, at = _read_varint(data, at)
        field, kind, repeated = by_number[key >> 3]
        value, at = _read_varint(data, at)
        if key & 7 == 2:
            value, at = _unpack_value(kind, data[at:at + value]), at + value
        elif kind in SIGNED:
            value = value >> 1 ^ -(value & 1)
        elif kind == "bool":
            value = bool(value)
        elif kind.startswith("int") and value >> 63:
            value -= 1 << 64
        if repeated:
            out[field].append(value)
        else:
            out[field] = value
    return out


def unpack_frame(data):
    """(kind, fields) of a Frame."""
    key, at = _read_varint(data, 0)
    length, at = _read_varint(data, at)
    assert key & 7 == 2 and at + length == len(data), "a frame has one kind"
    for kind, (number, message, _) in SCHEMA["Frame"].items():
        if number == key >> 3:
            return kind, unpack(message, data[at:])
    raise AssertionError(f"frame of unknown kind {key >> 3}")


class Connection:
    """The scheduler's end."""

    def __init__(self, sock):
        self.sock = sock
        self.data = bytearray()

    def send_bytes(self, data):
        self.sock.settimeout(20)
        self.sock.sendall(data)

    def send(self, kind, **fields):
        frame = pack("Frame", {kind: fields})
        self.send_bytes(struct.pack(">I", len(frame)) + frame)

    def receive(self, timeout=20):
        """The next frame; None at the end of the connection. TimeoutError where none comes."""
        end = time.monotonic() + timeout
        while True:
            if len(self.data) >= 4:
                length = struct.unpack(">I", self.data[:4])[0]
                if len(self.data) >= 4 + length:
                    frame = bytes(self.data[4:4 + length])
                    del self.data[:4 + length]
                    return unpack_frame(frame)
            left = end - time.monotonic()
            if left <= 0:
                raise TimeoutError("no frame in time")
            self.sock.settimeout(left)
            try:
                more = self.sock.recv(1 << 18)
            except socket.timeout:
                raise TimeoutError("no frame in time") from None
            except ConnectionResetError:
                return None
            if not more:
                return None
            self.data += more

    def close(self):
        self.sock.close()
