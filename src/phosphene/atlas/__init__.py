"""The unit atlas: folders of pictures, records and studies become pages.

The package itself can be called: `phosphene.atlas(runs)` makes the pages. Nothing here knows torch.
"""

import sys
from types import ModuleType
from typing import Any

from phosphene.atlas.call import AtlasPages, atlas
from phosphene.atlas.publishing import destination, publish
from phosphene.atlas.site import build, served

__all__ = ["AtlasPages", "atlas", "build", "destination", "publish", "served"]


class _Called(ModuleType):
    """Make the pages where the package is called."""

    def __call__(self, *arguments: Any, **options: Any) -> AtlasPages:
        return atlas(*arguments, **options)


sys.modules[__name__].__class__ = _Called
