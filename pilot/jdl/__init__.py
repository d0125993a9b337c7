"""The job description language, as AliEn's users write it, into a `JobDescription`."""

from pilot.jdl.description import parse_jdl
from pilot.jdl.document import JdlError
from pilot.jdl.keys import KNOWN_KEYS, unknown_keys_note

__all__ = ["KNOWN_KEYS", "JdlError", "parse_jdl", "unknown_keys_note"]
