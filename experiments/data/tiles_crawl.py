"""Cuts the floors and walls of Dungeon Crawl Stone Soup out of the sheets in its Debian package, as tiles of 32 pixels.

Arguments: folder, the largest number of tiles, side in pixels. The packages come from apt-get, which fetches and does not
install them. Tiles go to FOLDER/images, their kinds ("floor", "wall") to FOLDER/captions.jsonl, the package's own words
about authors and licences to FOLDER/LICENCE.txt.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile

from PIL import Image

CELL = 32
KINDS = ("floor", "wall")


def fetch(package, folder):
    """The files of a Debian package, below `folder`."""
    subprocess.run(["apt-get", "download", package], cwd=folder, check=True, stdout=sys.stderr)
    (archive,) = (name for name in os.listdir(folder) if name.startswith(f"{package}_"))
    subprocess.run(["dpkg-deb", "-x", archive, "."], cwd=folder, check=True)


def cells(sheet):
    """The cells of a sheet that hold a picture: nothing in them is transparent, and not all of them is black."""
    for top in range(0, sheet.height - CELL + 1, CELL):
        for left in range(0, sheet.width - CELL + 1, CELL):
            cell = sheet.crop((left, top, left + CELL, top + CELL))
            transparency = cell.getchannel("A").getextrema()
            shades = cell.convert("L").getextrema()
            if transparency == (255, 255) and shades[1] - shades[0] > 8:
                yield cell.convert("RGB")


def main():
    folder, count, size = sys.argv[1], *map(int, sys.argv[2:4])
    if not (shutil.which("apt-get") and shutil.which("dpkg-deb")):
        sys.exit("tiles-crawl comes from Debian's package archive: it takes apt-get and dpkg-deb")
    os.makedirs(os.path.join(folder, "images"))
    seen = set()
    with tempfile.TemporaryDirectory() as packages, open(
        os.path.join(folder, "captions.jsonl"), "w", encoding="utf-8"
    ) as captions:
        fetch("crawl-common", packages)
        fetch("crawl-tiles-data", packages)
        for kind in KINDS:
            sheet = Image.open(os.path.join(packages, "usr/share/crawl/dat/tiles", f"{kind}.png")).convert("RGBA")
            for cell in cells(sheet):
                known = cell.tobytes()
                if known in seen or len(seen) == count:
                    continue
                name = f"images/{kind}-{len(seen):04}.png"
                seen.add(known)
                # Pixels stay pixels.
                cell.resize((size, size), Image.Resampling.NEAREST).save(os.path.join(folder, name))
                captions.write(json.dumps({"file": name, "caption": f"a tile of a {kind}", "kind": kind}) + "\n")
        about = os.path.join(packages, "usr/share/doc/crawl-common/copyright")
        shutil.copyfile(about, os.path.join(folder, "LICENCE.txt"))


if __name__ == "__main__":
    main()
