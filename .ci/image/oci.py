#!/usr/bin/env python3
"""Writes an image: an OCI layout in a tar, which containerd, Docker and registries' tools read.

    oci.py OUT.tar NAME:TAG --user UID [--label KEY=VALUE]... [--link NAME=PROGRAM]... PROGRAM...
    oci.py OUT.tar NAME:TAG --user UID DIRECTORY

Each program lies in the root of the image, and the first is the entrypoint; a link is another name of a program there. Or
the files under a directory are the image.
The same files give the same bytes: names are sorted, times are zero, everything belongs to root.
"""

import argparse
import gzip
import hashlib
import io
import json
import pathlib
import platform
import tarfile

ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}
MEDIA_TYPE = "application/vnd.oci.image."


def digest_of(content: bytes) -> str:
    return "sha256:" + hashlib.sha256(content).hexdigest()


def path_of(digest: str) -> str:
    return "blobs/" + digest.replace(":", "/")


def tar_of(files: dict[str, tuple[int, bytes]], links: dict[str, str] = {}) -> bytes:
    """A tar of files by name, each with its mode, then of symbolic links."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for name, (mode, content) in sorted(files.items()):
            entry = tarfile.TarInfo(name)
            entry.mode = mode
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
        for name, target in sorted(links.items()):
            entry = tarfile.TarInfo(name)
            entry.type, entry.linkname, entry.mode = tarfile.SYMTYPE, target, 0o777
            tar.addfile(entry)
    return out.getvalue()


class Layout:
    """An OCI layout that grows blob by blob."""

    def __init__(self):
        self.files = {"oci-layout": b'{"imageLayoutVersion":"1.0.0"}'}

    def blob(self, kind: str, content: bytes, **more) -> dict:
        """Takes a blob in; what refers to it."""
        digest = digest_of(content)
        self.files[path_of(digest)] = content
        return {"mediaType": MEDIA_TYPE + kind, "digest": digest, "size": len(content), **more}

    def json(self, name: str, content) -> None:
        self.files[name] = encoded(content)


def encoded(content) -> bytes:
    return json.dumps(content, sort_keys=True, separators=(",", ":")).encode()


def content_of(paths: list[pathlib.Path]) -> tuple[dict[str, tuple[int, bytes]], dict]:
    """The files of an image, and how it starts."""
    first = paths[0]
    if first.is_dir():
        files = [path for path in first.rglob("*") if path.is_file()]
        return {str(file.relative_to(first)): (file.stat().st_mode & 0o777, file.read_bytes()) for file in files}, {}
    return {path.name: (0o755, path.read_bytes()) for path in paths}, {"Entrypoint": ["/" + first.name]}


def image(name: str, user: str, labels: dict[str, str], links: dict[str, str], paths: list[pathlib.Path]) -> Layout:
    files, start = content_of(paths)
    layer = tar_of(files, links)
    platform_of_image = {"architecture": ARCHITECTURES[platform.machine()], "os": "linux"}
    layout = Layout()
    layer_blob = layout.blob("layer.v1.tar+gzip", gzip.compress(layer, 9, mtime=0))
    config = layout.blob(
        "config.v1+json",
        encoded(
            {
                **platform_of_image,
                "config": {"User": user, "Labels": labels, **start},
                "rootfs": {"type": "layers", "diff_ids": [digest_of(layer)]},
            }
        ),
    )
    manifest = encoded(
        {
            "schemaVersion": 2,
            "mediaType": MEDIA_TYPE + "manifest.v1+json",
            "config": config,
            "layers": [layer_blob],
            "annotations": labels,
        }
    )
    names = {"io.containerd.image.name": name, "org.opencontainers.image.ref.name": name.rsplit(":", 1)[1]}
    described = layout.blob("manifest.v1+json", manifest, annotations=names, platform=platform_of_image)
    layout.json("index.json", {"schemaVersion": 2, "mediaType": MEDIA_TYPE + "index.v1+json", "manifests": [described]})
    # What Docker read before it knew OCI layouts.
    layout.json(
        "manifest.json",
        [
            {
                "Config": path_of(config["digest"]),
                "Layers": [path_of(layer_blob["digest"])],
                "RepoTags": [name],
            }
        ],
    )
    return layout


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("out", type=pathlib.Path)
    parser.add_argument("name")
    parser.add_argument("--user", required=True)
    parser.add_argument("--label", action="append", default=[])
    parser.add_argument("--link", action="append", default=[])
    parser.add_argument("paths", nargs="+", type=pathlib.Path)
    said = parser.parse_args()
    labels, links = (dict(pair.split("=", 1) for pair in pairs) for pairs in (said.label, said.link))
    layout = image(said.name, said.user, labels, links, said.paths)
    said.out.write_bytes(tar_of({name: (0o644, content) for name, content in layout.files.items()}))


main()
