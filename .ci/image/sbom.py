#!/usr/bin/env python3
"""Prints the bill of materials (CycloneDX 1.6, JSON) of one package of this workspace: what is linked into its programs.

    sbom.py PACKAGE TARGET

From Cargo.lock, by `cargo metadata`: normal dependencies for that target and what build scripts bring, without those of
tests. The same lock file gives the same bytes: there is no time and no serial number in it.
"""

import json
import subprocess
import sys
import tomllib


def metadata(target: str) -> dict:
    command = ["cargo", "metadata", "--locked", "--format-version", "1", "--filter-platform", target]
    return json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)


def checksums() -> dict[tuple[str, str], str]:
    with open("Cargo.lock", "rb") as lock:
        packages = tomllib.load(lock)["package"]
    return {(p["name"], p["version"]): p["checksum"] for p in packages if "checksum" in p}


def needed(nodes: dict[str, dict], root: str) -> dict[str, list[str]]:
    """Every package under the root, with what it needs itself."""
    found, open_ids = {}, [root]
    while open_ids:
        current = open_ids.pop()
        if current in found:
            continue
        found[current] = sorted(
            dependency["pkg"]
            for dependency in nodes[current]["deps"]
            if any(kind["kind"] != "dev" for kind in dependency["dep_kinds"])
        )
        open_ids += found[current]
    return found


def component(package: dict, checksum: str | None) -> dict:
    described = {
        "type": "library",
        "bom-ref": reference(package),
        "name": package["name"],
        "version": package["version"],
        "purl": reference(package),
    }
    if package["license"]:
        described["licenses"] = [{"expression": package["license"].replace("/", " OR ")}]
    if checksum:
        described["hashes"] = [{"alg": "SHA-256", "content": checksum}]
    return described


def reference(package: dict) -> str:
    return f"pkg:cargo/{package['name']}@{package['version']}"


def main() -> None:
    name, target = sys.argv[1:]
    known = metadata(target)
    packages = {package["id"]: package for package in known["packages"]}
    nodes = {node["id"]: node for node in known["resolve"]["nodes"]}
    root = next(id for id in known["workspace_members"] if packages[id]["name"] == name)
    hashes = checksums()
    found = needed(nodes, root)
    components = [
        component(packages[id], hashes.get((packages[id]["name"], packages[id]["version"])))
        for id in found
        if id != root
    ]
    dependencies = [
        {"ref": reference(packages[id]), "dependsOn": sorted(reference(packages[other]) for other in others)}
        for id, others in found.items()
    ]
    bom = {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {"component": component(packages[root], None) | {"type": "application"}},
        "components": sorted(components, key=lambda described: described["bom-ref"]),
        "dependencies": sorted(dependencies, key=lambda described: described["ref"]),
    }
    print(json.dumps(bom, indent=1))


main()
