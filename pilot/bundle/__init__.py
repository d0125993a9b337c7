"""The relocatable Python that a wrapper runs from in any image."""

from pilot.bundle.build import WRAPPER_VARIABLES, Bundle, build_bundle
from pilot.bundle.taking import TakenBundle, take_bundle

__all__ = ["WRAPPER_VARIABLES", "Bundle", "TakenBundle", "build_bundle", "take_bundle"]
