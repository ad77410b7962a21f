#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""image.py NAME ENTRYPOINT FILE ARCHIVE: an image of one file, at ENTRYPOINT, as an archive to import."""

import hashlib
import io
import json
import sys
import tarfile


def add(archive, name, data, mode=0o644):
    info = tarfile.TarInfo(name)
    info.size, info.mode = len(data), mode
    archive.addfile(info, io.BytesIO(data))


def tar_of(files):
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for name, data, mode in files:
            add(archive, name, data, mode)
    return out.getvalue()


def main(name, entrypoint, path, archive):
    with open(path, "rb") as f:
        layer = tar_of([(entrypoint.lstrip("/"), f.read(), 0o755)])
    config = json.dumps({
        "architecture": "amd64", "os": "linux", "config": {"Entrypoint": [entrypoint]},
        "rootfs": {"type": "layers", "diff_ids": ["sha256:" + hashlib.sha256(layer).hexdigest()]},
    }).encode()
    manifest = json.dumps([{"Config": "config.json", "RepoTags": [name], "Layers": ["layer.tar"]}])
    with open(archive, "wb") as f:
        f.write(tar_of([("config.json", config, 0o644), ("layer.tar", layer, 0o644),
                        ("manifest.json", manifest.encode(), 0o644)]))


if __name__ == "__main__":
    main(*sys.argv[1:])
