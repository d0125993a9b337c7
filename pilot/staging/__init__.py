"""Moving a job's files in and out of its work directory, over local paths."""

from pilot.staging.input_data_list import write_input_data_list
from pilot.staging.local_stager import LocalStager

__all__ = [
    "LocalStager",
    "write_input_data_list",
]
