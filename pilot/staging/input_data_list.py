"""The list of a job's input data, in the formats that a JDL may ask for.

Most jobs have none: only what they all import is imported here, before it is needed.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import PurePosixPath

from transport.errors import UserError
from transport.messages import InputFile


def write_input_data_list(
    directory: str,
    name: str,
    format: str,  # noqa: A002 - the JDL's own word
    files: Sequence[InputFile],
) -> str:
    """Write the list of a job's input data (InputDataList) and return its path.

    ``format`` is InputDataListFormat: ``xml-single`` (an AliEn collection), ``txt-list``
    (``alien://`` and the catalogue name, a line each) or ``json``. A file that isn't in the
    catalogue is listed by its path. Blocks for the time of a small write.
    """
    from pilot.staging.trusted_files import destination, inside, new_file

    if format not in _LIST_FORMATS:
        known = ", ".join(_LIST_FORMATS)
        raise UserError(f"InputDataListFormat {format!r} isn't known; write one of {known}.")
    name = inside(name, "InputDataList")
    text = _LIST_FORMATS[format]([_listed(file, directory) for file in files])
    with destination(f"InputDataList {name!r}"), new_file(directory, name) as sink:
        sink.write(text.encode())
    return f"{directory}/{name}"


def _listed(file: InputFile, directory: str) -> dict[str, str]:
    path = f"{directory}/{file.name}" if file.is_staged else file.source
    lfn = file.catalogue_name or path
    if any(ord(letter) < 32 for letter in lfn + file.name):
        raise UserError(f"Input data {lfn!r} has a control character in its name; rename it.")
    turl = f"alien://{lfn}" if file.catalogue_name else lfn
    return {"name": PurePosixPath(lfn).name, "lfn": lfn, "turl": turl, "type": "f"}


def _xml_list(files: Sequence[dict[str, str]]) -> str:
    """One <file> a line, its name first: AliEn's own reader takes it line by line."""
    from html import escape

    lines = ['<?xml version="1.0"?>', "<alien>", '  <collection name="jobinputdata">']
    for number, file in enumerate(files, 1):
        attributes = " ".join(f'{key}="{escape(value)}"' for key, value in file.items())
        lines += [f'    <event name="{number}">', f"      <file {attributes} />", "    </event>"]
    return "\n".join([*lines, "  </collection>", "</alien>", ""])


def _txt_list(files: Sequence[dict[str, str]]) -> str:
    return "".join(f"{file['turl']}\n" for file in files)


def _json_list(files: Sequence[dict[str, str]]) -> str:
    import json

    return json.dumps({"name": "jobinputdata", "files": list(files)}, indent=1) + "\n"


_LIST_FORMATS = {"xml-single": _xml_list, "txt-list": _txt_list, "json": _json_list}
