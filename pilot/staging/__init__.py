"""Moving a job's files in and out of its work directory, over local paths."""

from pilot.staging.input_data_list import write_input_data_list
from pilot.staging.local_stager import (
    FILES_PER_PATTERN_MAX,
    NOTES_MAX,
    SAVED_BYTES_MAX,
    LocalStager,
)

__all__ = [
    "FILES_PER_PATTERN_MAX",
    "NOTES_MAX",
    "SAVED_BYTES_MAX",
    "LocalStager",
    "write_input_data_list",
]
