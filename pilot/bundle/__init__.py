"""The relocatable Python that a wrapper runs from in any image."""

from pilot.bundle.build import Bundle, build_bundle

__all__ = ["Bundle", "build_bundle"]
