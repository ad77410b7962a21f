#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""openapi-to-c.py OPENAPI.YAML OUTPUT.C: the contract as JSON, in a C array."""

import json
import sys

import yaml


class Loader(yaml.SafeLoader):
    """Refuses duplicate keys, which YAML forbids and PyYAML lets pass."""

    def construct_mapping(self, node, deep=False):
        seen = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node)
            if key in seen:
                raise yaml.constructor.ConstructorError(None, None, f"duplicate key {key!r}",
                                                        key_node.start_mark)
            seen.add(key)
        return super().construct_mapping(node, deep)


def main():
    source, output = sys.argv[1:]
    with open(source, encoding="utf-8") as f:
        contract = yaml.load(f, Loader)
    text = json.dumps(contract, ensure_ascii=False, separators=(",", ":")).encode() + b"\n"
    rows = [text[i:i + 16] for i in range(0, len(text), 16)]
    with open(output, "w", encoding="ascii") as f:
        f.write('/* SPDX-License-Identifier: Apache-2.0 */\n#include "api/openapi.h"\n\n')
        f.write(f"const size_t openapi_json_len = {len(text)};\nconst char openapi_json[] = {{\n")
        for row in rows:
            f.write("\t" + " ".join(f"{b if b < 128 else b - 256}," for b in row) + "\n")
        f.write("};\n")


main()
