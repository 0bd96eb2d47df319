"""licences.py TARGET: names, versions and licence texts of every crate that reid-edge links, on standard output.

A binary carries its libraries' code, and most licences want their text to travel with it. Texts that are the same to the
letter are printed once.
"""

import json
import pathlib
import subprocess
import sys

NAMES = ("license", "licence", "copying", "copyright", "notice", "unlicense")


def cargo(*arguments):
    root = pathlib.Path(__file__).resolve().parents[2]
    done = subprocess.run(("cargo", *arguments), cwd=root, check=True, capture_output=True, text=True)
    return done.stdout


def main():
    target = sys.argv[1]
    tree = cargo("tree", "-p", "reid-edge", "-e", "normal", "--target", target, "--prefix", "none", "--format", "{p}", "--locked")
    linked = {tuple(line.split()[:2]) for line in tree.splitlines() if line.strip()}
    packages = json.loads(cargo("metadata", "--format-version", "1", "--filter-platform", target, "--locked"))["packages"]
    rows, texts = [], {}
    for package in sorted(packages, key=lambda p: (p["name"], p["version"])):
        if package["source"] is None or (package["name"], "v" + package["version"]) not in linked:
            continue
        folder = pathlib.Path(package["manifest_path"]).parent
        name = f"{package['name']} {package['version']}"
        rows.append(f"{name}: {package['license'] or 'see ' + str(package['license_file'])}")
        # SQLite's source is in the public domain, and its crate says the rest.
        for file in sorted(folder.iterdir()):
            if file.is_file() and file.name.lower().startswith(NAMES):
                text = file.read_text(encoding="utf-8", errors="replace").strip()
                texts.setdefault(text, []).append(name)
    if not rows:
        sys.exit("cargo names no crate that reid-edge links")
    print(f"reid-edge contains Rust's standard library (MIT OR Apache-2.0) and these {len(rows)} crates:\n")
    print("\n".join(rows))
    for text, names in texts.items():
        print("\n" + "-" * 100 + "\n" + ", ".join(names) + "\n\n" + text)


main()
