"""Prints the crates that are linked into the program, with the texts of their licences: each text once, below all crates that
have it. The input is what `cargo metadata` says."""

import json
import os
import sys

FILES = ("LICENSE", "LICENCE", "COPYING", "COPYRIGHT", "NOTICE", "UNLICENSE")


def linked(metadata):
    """Returns the packages that otproxy needs to run, itself and its own crates left out."""
    nodes = {node["id"]: node for node in metadata["resolve"]["nodes"]}
    packages = {package["id"]: package for package in metadata["packages"]}
    (root,) = (id for id, package in packages.items() if package["name"] == "otproxy")
    seen, left = set(), [root]
    while left:
        id = left.pop()
        if id not in seen:
            seen.add(id)
            left += (
                dep["pkg"] for dep in nodes[id]["deps"] if any(kind["kind"] is None for kind in dep["dep_kinds"])
            )
    found = (packages[id] for id in seen)
    return sorted((p for p in found if p["source"]), key=lambda package: (package["name"], package["version"]))


def main():
    crates = linked(json.load(sys.stdin))
    if len(crates) < 50:
        sys.exit(f"only {len(crates)} crates: does this still find them?")
    print("These crates are linked into otproxy. Each can be had under the licence beside its name.\n")
    texts = {}
    for crate in crates:
        name = f"{crate['name']} {crate['version']}"
        print(f"{name}: {crate['license'] or sys.exit(f'{name} names no licence')}")
        folder = os.path.dirname(crate["manifest_path"])
        for file in sorted(os.listdir(folder)):
            path = os.path.join(folder, file)
            if file.upper().startswith(FILES) and os.path.isfile(path):
                with open(path, encoding="utf-8", errors="replace") as text:
                    lines = [line.rstrip() for line in text.read().strip("\n\ufeff").splitlines()]
                # Texts that differ in their line breaks alone are one.
                _, names = texts.setdefault(" ".join(" ".join(lines).split()), ("\n".join(lines), []))
                names.append(name)
    for text, names in sorted(texts.values(), key=lambda text: text[1]):
        print(f"\n{'=' * 100}\n{', '.join(dict.fromkeys(names))}\n{'-' * 100}\n{text}")


main()
