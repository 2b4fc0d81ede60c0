"""Run a saved engine on one held-out digit: show it, its scores, and the class predicted against the truth.

    python examples/digits/predict.py digits.engine [ROW]

Leaves with 1 where the prediction is wrong.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

import enginery

HERE = Path(__file__).parent
SHADES = " .:-=+*#%@"


def draw(image: np.ndarray) -> str:
    """Draw an image of values from 0 to 1 with characters, two for each pixel."""
    return "\n".join("".join(SHADES[round(float(value) * (len(SHADES) - 1))] * 2 for value in row) for row in image)


def main(arguments: list[str]) -> int:
    """Predict one digit; return the exit status."""
    if not 1 <= len(arguments) <= 2:  # noqa: PLR2004 - the engine and a row
        print(__doc__.strip())
        return 2
    row = int(arguments[1]) if len(arguments) > 1 else 0
    with np.load(HERE / "heldout.npz") as held_out:
        images, labels = held_out["image"], held_out["labels"]
    if not 0 <= row < len(images):
        print(f"there is no row {row}; the held-out digits are 0 to {len(images) - 1}")
        return 2
    image, truth = images[row], int(labels[row])
    with enginery.load(arguments[0]) as session:
        scores = session(image[None])[0]
    predicted = int(scores.argmax())
    print(draw(image[0]))
    for digit in np.argsort(scores)[::-1][:3]:
        print(f"  {digit}: {scores[digit]:+.2f}")
    print(f"predicted {predicted}, truth {truth}: {'right' if predicted == truth else 'wrong'}")
    return 0 if predicted == truth else 1


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
