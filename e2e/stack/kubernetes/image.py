#!/usr/bin/env python3
"""image.py OUT.tar NAME [--entrypoint PATH] [--user UID] SOURCE:TARGET...

Writes a container image of the given files as an OCI tar that `ctr images import` and `kind load image-archive` take: one
layer, the same bytes for the same files. No registry, no daemon. For tests; the image for users comes from a Dockerfile."""

import argparse
import hashlib
import io
import json
import os
import tarfile

PATHS = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
MEDIA = "application/vnd.oci.image."


def layer_of(files):
    """The layer's bytes: each file with the folders above it, and an empty /tmp."""
    buffer = io.BytesIO()
    folders, written = set(), set()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.GNU_FORMAT) as layer:

        def add_folder(path, mode=0o755):
            if path and path not in folders:
                add_folder(os.path.dirname(path))
                folders.add(path)
                entry = tarfile.TarInfo(path)
                entry.type, entry.mode = tarfile.DIRTYPE, mode
                layer.addfile(entry)

        for file in files:
            source, target = file.split(":")
            target = target.lstrip("/")
            if target in written:
                continue
            written.add(target)
            add_folder(os.path.dirname(target))
            entry = tarfile.TarInfo(target)
            entry.size, entry.mode = os.path.getsize(source), 0o755
            with open(source, "rb") as content:
                layer.addfile(entry, content)
        add_folder("tmp", 0o1777)
    return buffer.getvalue()


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out")
    parser.add_argument("name")
    parser.add_argument("--entrypoint")
    parser.add_argument("--user", default="65532")
    parser.add_argument("files", nargs="+")
    arguments = parser.parse_args()

    blobs = {}

    def blob(content):
        digest = hashlib.sha256(content).hexdigest()
        blobs[digest] = content
        return {"digest": "sha256:" + digest, "size": len(content)}

    layer = blob(layer_of(arguments.files))
    config = {"Env": [PATHS], "User": arguments.user}
    if arguments.entrypoint:
        config["Entrypoint"] = [arguments.entrypoint]
    image = {
        "architecture": "amd64",
        "os": "linux",
        "config": config,
        "created": "1970-01-01T00:00:00Z",
        "rootfs": {"type": "layers", "diff_ids": [layer["digest"]]},
    }
    manifest = {
        "schemaVersion": 2,
        "mediaType": MEDIA + "manifest.v1+json",
        "config": {"mediaType": MEDIA + "config.v1+json", **blob(json.dumps(image).encode())},
        "layers": [{"mediaType": MEDIA + "layer.v1.tar", **layer}],
    }
    names = {"io.containerd.image.name": arguments.name, "org.opencontainers.image.ref.name": arguments.name.rsplit(":", 1)[1]}
    entry = {
        "mediaType": MEDIA + "manifest.v1+json",
        **blob(json.dumps(manifest).encode()),
        "platform": {"architecture": "amd64", "os": "linux"},
        "annotations": names,
    }
    index = {"schemaVersion": 2, "mediaType": MEDIA + "index.v1+json", "manifests": [entry]}

    # A reader must never see half of it.
    with tarfile.open(arguments.out + ".new", "w") as out:
        contents = [("oci-layout", b'{"imageLayoutVersion":"1.0.0"}'), ("index.json", json.dumps(index).encode())]
        contents += [("blobs/sha256/" + digest, content) for digest, content in blobs.items()]
        for name, content in contents:
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode = len(content), 0o644
            out.addfile(entry, io.BytesIO(content))
    os.replace(arguments.out + ".new", arguments.out)
    print(f"{arguments.name}: {os.path.getsize(arguments.out)} bytes in {arguments.out}")


if __name__ == "__main__":
    main()
