"""The unit atlas: folders of pictures, records and studies become pages.

Nothing here knows torch.
"""

from phosphene.atlas.publishing import destination, publish
from phosphene.atlas.site import build, served

__all__ = ["build", "destination", "publish", "served"]
