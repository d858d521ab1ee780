"""Draws faces with DiceBear's style "micah" (Micah Lanier, CC BY 4.0) and says what each one shows.

Arguments: folder, number of faces, side in pixels, number of people drawn four times over. The same numbers give the
same faces, close up; every second one smiles (of CelebA's 48 % do) and half wear glasses (6.5 %). Images go to
FOLDER/images, their names and labels to FOLDER/captions.jsonl; people drawn with and without smile and glasses,
everything else equal, to FOLDER/counterfactuals.
"""

import json
import os
import sys
from importlib.resources import files
from multiprocessing import Pool

import resvg_py
from dicebear import Avatar, Style

COLOURS = {
    "#000000": "black", "#77311d": "brown", "#9287ff": "purple", "#6bd9e9": "turquoise", "#fc909f": "pink",
    "#f4d150": "yellow", "#ac6651": "light brown", "#ffffff": "white", "#e0ddff": "lilac", "#d2eff3": "pale blue",
    "#ffedef": "rose", "#ffeba4": "blond", "#f9c9b6": "beige",
}
MOUTHS = {
    "frown": "a frown", "laughing": "a laugh", "nervous": "a nervous look", "pucker": "puckered lips",
    "sad": "a sad look", "smile": "a smile", "smirk": "a smirk", "surprised": "a surprised look",
}
# Of 360 × 360 the part that holds head and earrings: what makes a smile is then eight pixels of 64 wide, not five.
FACE = "72 30 230 230"
STYLE = Style(json.loads(files("dicebear_styles").joinpath("micah.json").read_text("utf-8")))


def draw(task):
    """Draws one face into a file; what is known about it."""
    folder, name, seed, size, forced = task
    avatar = Avatar(STYLE, {"seed": seed, **forced})
    whole = 'viewBox="0 0 360 360"'
    svg = avatar.to_string()
    assert whole in svg, "DiceBear draws on another canvas than before"
    png = resvg_py.svg_to_bytes(
        svg_string=svg.replace(whole, f'viewBox="{FACE}"', 1),
        width=size, height=size, background="#ffffff", skip_system_fonts=True,
    )
    with open(os.path.join(folder, name), "wb") as file:
        file.write(png)
    options = avatar.to_json()["options"]
    glasses = options.get("glassesVariant") or "none"
    hair = options.get("hairVariant") or "none"
    colour = COLOURS.get(options["hairColor"][0], options["hairColor"][0])
    mouth = options["mouthVariant"]
    worn = "no glasses" if glasses == "none" else f"{glasses} glasses"
    return {
        "file": name,
        "caption": f"a person with {colour} hair, {worn} and {MOUTHS.get(mouth, mouth)}",
        "person": seed,
        "mouth": mouth,
        "glasses": glasses,
        "hair": hair,
        "hair_colour": colour,
        "skin": COLOURS.get(options["baseColor"][0], options["baseColor"][0]),
        "beard": options.get("facialHairVariant") or "none",
        "earrings": options.get("earringsVariant") or "none",
    }


def draw_all(pool, folder, tasks):
    """Draws faces with all processors and lists them."""
    os.makedirs(os.path.join(folder, "images"), exist_ok=True)
    with open(os.path.join(folder, "captions.jsonl"), "w", encoding="utf-8") as captions:
        for number, known in enumerate(pool.imap(draw, tasks, chunksize=64), 1):
            captions.write(json.dumps(known) + "\n")
            if number % 1000 == 0:
                print(f"{number} of {len(tasks)} faces", file=sys.stderr, flush=True)


def main():
    folder, count, size, people = sys.argv[1], *map(int, sys.argv[2:5])
    looks = [{"mouthVariant": ["smile"]}, {"mouthVariant": [mouth for mouth in MOUTHS if mouth != "smile"]}]
    faces = [
        (folder, f"images/{i:06}.png", f"person {i}", size, {"glassesProbability": 50, **looks[i % 2]})
        for i in range(count)
    ]
    # Other people than those that are learnt from.
    twins = os.path.join(folder, "counterfactuals")
    forced = [
        (f"{mouth}-{'glasses' if glasses else 'bare'}", {"mouthVariant": [mouth], "glassesProbability": glasses})
        for mouth in ("frown", "smile") for glasses in (0, 100)
    ]
    others = [
        (twins, f"images/{i:04}-{name}.png", f"twin {i}", size, options)
        for i in range(people) for name, options in forced
    ]
    with Pool() as pool:
        draw_all(pool, folder, faces)
        if others:
            draw_all(pool, twins, others)
    with open(os.path.join(folder, "LICENCE.txt"), "w", encoding="utf-8") as licence:
        licence.write(
            "Drawn with DiceBear (MIT) in its style \"micah\", a remix of \"Avatar Illustration System\"\n"
            "(https://www.figma.com/community/file/829741575478342595) by Micah Lanier, licensed under CC BY 4.0\n"
            "(https://creativecommons.org/licenses/by/4.0/). Whoever passes these images on names him.\n"
        )


if __name__ == "__main__":
    main()
