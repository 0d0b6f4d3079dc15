"""Photos of animals, of which there are several each."""

from pathlib import Path

from conftest import write_image

PATTERN = r"animal(\d+)-"


def write_animals(root: Path, animals: int = 40) -> None:
    """Five photos of each animal; those with an even number are cats."""
    for animal in range(animals):
        for i in range(5):
            write_image(root / ("dog" if animal % 2 else "cat") / f"animal{animal}-{i}.png", 10 * animal + i)
