"""Writes golden.json beside it: pictures as OpenCV makes them, which pictures.rs compares with.

Needs numpy and opencv-python-headless (made with 5.0.0; 4.14.0 gives the same), which the project itself does not.
"""

import json
from pathlib import Path

import cv2
import numpy as np


def source(shape, levels):
    """Bytes of a linear congruential generator, of few levels where means shall lie between two bytes."""
    state, values = 1, []
    for _ in range(int(np.prod(shape))):
        state = (state * 1_664_525 + 1_013_904_223) % 2**32
        values.append((state >> 24) * levels // 256 * (256 // levels))
    return np.array(values, np.uint8).reshape(shape)


METHODS = {"area": cv2.INTER_AREA, "bilinear": cv2.INTER_LINEAR}


def case(shape, crop, grayscale, resize, method="area", levels=256):
    picture = source(shape, levels)
    top, bottom, left, right = crop
    shown = picture[top : shape[0] - bottom, left : shape[1] - right]
    if grayscale and shape[2] == 3:
        shown = cv2.cvtColor(shown, cv2.COLOR_RGB2GRAY)
    if resize:
        shown = cv2.resize(shown, resize[::-1], interpolation=METHODS[method])
    planes = shown[None] if shown.ndim == 2 else shown.transpose(2, 0, 1)
    return {
        "shape": shape,
        "levels": levels,
        "crop": crop,
        "grayscale": grayscale,
        "resize": resize,
        "method": method,
        "opencv": np.ascontiguousarray(planes).tobytes().hex(),
    }


NONE = (0, 0, 0, 0)
cases = [
    case((16, 16, 3), NONE, True, None),
    case((20, 30, 3), (1, 2, 3, 4), True, None),
    # Pathak et al. 2017: the picture of Super Mario Bros. and that of Doom.
    case((224, 256, 3), (24, 12, 8, 8), True, (42, 42)),
    case((120, 160, 3), NONE, True, (42, 42), "bilinear"),
    # Whole factors, and the mean of four, which both methods take.
    case((63, 84, 1), NONE, True, (21, 21)),
    case((40, 40, 1), NONE, False, (20, 20), levels=4),
    case((40, 40, 1), NONE, False, (20, 20), "bilinear", levels=4),
    case((40, 60, 1), NONE, False, (20, 20), levels=2),
    # Pictures of the Arcade Learning Environment, small; some means are halves.
    case((105, 80, 1), NONE, False, (42, 42), levels=2),
    case((50, 60, 3), NONE, True, (49, 60), levels=4),
    # Colours.
    case((37, 53, 3), NONE, False, (11, 17)),
    case((37, 53, 3), (0, 1, 2, 3), False, (11, 17), "bilinear"),
    # Larger, in one direction or in both.
    case((7, 9, 1), NONE, False, (21, 27), "bilinear"),
    case((42, 100, 1), NONE, False, (84, 50), "bilinear"),
    case((1, 2, 1), NONE, False, (3, 8), "bilinear"),
]
lines = ",\n".join(json.dumps(one) for one in cases)
Path(__file__).with_name("golden.json").write_text(f"[\n{lines}\n]\n")
