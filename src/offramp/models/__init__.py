"""The models in the box: artifacts that come with the package, each trained by a recipe of the project's own."""

from pathlib import Path

CIFAR10 = Path(__file__).parent / "cifar10"
"""The folder of the model ``cifar10``; its card says what it is and what it is worth."""
