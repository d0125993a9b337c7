"""Container images: what a job names, found or fetched to this node's disk, with its digest."""

from pilot.images.locks import FileLock
from pilot.images.reference import check_digest, from_directory, local_path, parse_reference
from pilot.images.store import ImageStore, LocalImage, StoreOptions

__all__ = [
    "FileLock",
    "ImageStore",
    "LocalImage",
    "StoreOptions",
    "check_digest",
    "from_directory",
    "local_path",
    "parse_reference",
]
