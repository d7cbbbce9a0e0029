"""Offramp: Vision Transformers and CNNs that stop computing as soon as they are sure.

The public names stand in ``__init__.pyi``, for type checkers and for the loader alike; each is imported when it is
first used, so that ``import offramp`` and ``offramp --help`` cost nothing.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
