"""Takes the textures out of the package of Craftax (Matthews et al. 2024, MIT), whose code is not run.

Arguments: folder, the largest number of textures, side in pixels. Textures go to FOLDER/images, their names to
FOLDER/captions.jsonl, the licence to FOLDER/LICENCE.txt.
"""

import json
import os
import sys
from importlib.metadata import distribution

from PIL import Image


def main():
    folder, count, size = sys.argv[1], *map(int, sys.argv[2:4])
    os.makedirs(os.path.join(folder, "images"))
    package, seen, licence = distribution("craftax"), set(), ""
    with open(os.path.join(folder, "captions.jsonl"), "w", encoding="utf-8") as captions:
        for file in sorted(package.files, key=str):
            if "LICENSE" in file.name:
                licence = file.read_text("utf-8")
            if not (file.suffix == ".png" and "assets" in file.parts) or len(seen) == count:
                continue
            texture = Image.open(package.locate_file(file)).convert("RGBA")
            # What is transparent lies on black, as in the game.
            tile = Image.alpha_composite(Image.new("RGBA", texture.size, "black"), texture).convert("RGB")
            tile = tile.resize((size, size), Image.Resampling.NEAREST if texture.width <= size else Image.Resampling.BOX)
            known = tile.tobytes()
            if known in seen:
                continue
            name = f"images/{len(seen):04}-{file.stem}.png"
            seen.add(known)
            tile.save(os.path.join(folder, name))
            caption = file.stem.replace("-", " ").replace("_", " ")
            captions.write(json.dumps({"file": name, "caption": caption}) + "\n")
    with open(os.path.join(folder, "LICENCE.txt"), "w", encoding="utf-8") as about:
        about.write(f"Textures of Craftax {package.version} (MIT).\n\n{licence}")


if __name__ == "__main__":
    main()
