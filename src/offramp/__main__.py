"""``python -m offramp``, for launchers such as ``accelerate launch -m offramp``."""

from offramp.cli import main

main()
