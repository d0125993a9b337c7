"""Container images: what a job names, found on this node's disk, with its digest."""

from pilot.images.store import ImageStore, LocalImage, check_digest

__all__ = ["ImageStore", "LocalImage", "check_digest"]
