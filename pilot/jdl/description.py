"""What a JDL asks for: the text of a user becomes a `JobDescription`, or one clear sentence.

How a JDL is written is in `pilot.jdl.syntax`, where names lead in `pilot.jdl.files`, what is
saved in `pilot.jdl.outputs`. Nothing here reads a file or looks at the node.

Our own additions to the dialect are ``ContainerImage`` and ``ContainerImageDigest``. Keys that
nobody knows are kept as written and never an error, as JDLs carry the keys of other tools;
`unknown_keys_note` finds the misspelt ones among them.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path, PurePath
from typing import NamedTuple

from pilot.jdl.document import Document, JdlError, Word, shown
from pilot.jdl.files import Inputs, Whereabouts, image_digest, image_reference, work_file_name
from pilot.jdl.keys import KNOWN_KEYS, unknown_keys, unknown_keys_note
from pilot.jdl.outputs import DEFAULT_ERROR_OUTPUTS, DEFAULT_OUTPUTS, read_outputs
from pilot.jdl.syntax import read_document
from pilot.jdl.values import read_price, read_size, read_whole
from transport.messages import InputFile, JobDescription, OutputSpec

__all__ = ["KNOWN_KEYS", "JdlError", "parse_jdl", "unknown_keys_note"]

TTL_S_DEFAULT = 21600
TTL_S_MAX = 180 * 86400
CPU_CORES_MAX = 1024
MEMORY_BYTES_PER_CORE = 8 * 10**9
DISK_BYTES_PER_CORE = 10 * 10**9
PRIORITY_MAX = 10**6
PRICE_MAX = 1e6
LIST_FORMATS = ("xml-single", "txt-list", "json")


def parse_jdl(
    text: str, *, source: str, directory: Path, catalogue: Mapping[str, Path] = {}
) -> JobDescription:
    """Read a JDL.

    ``source`` is what errors call it, ``directory`` where its relative names lead;
    ``catalogue`` maps a prefix of catalogue names to the directory that holds them.
    Raises JdlError, whose text is ``source:line:column: key: what is wrong; what to write``.
    """
    document = read_document(text, source=source)
    where = Whereabouts.of(directory, catalogue)
    files = _read_files(document, where)
    cpu_cores = read_whole(document, "CPUCores", 1, least=0, most=CPU_CORES_MAX)
    variables = _read_variables(document)
    return JobDescription(
        executable=files.executable,
        arguments=_read_arguments(document),
        name=_read_name(document, source),
        validation_command=files.validation_command,
        inputs=files.inputs,
        input_data=files.input_data,
        input_data_list=files.list_name,
        input_data_list_format=_read_list_format(document),
        outputs=_read_outputs(document),
        error_outputs=_read_error_outputs(document),
        variables=variables,
        packages=_read_texts(document, "Packages"),
        ttl_s=read_whole(document, "TTL", TTL_S_DEFAULT, least=1, most=TTL_S_MAX),
        cpu_cores=cpu_cores,
        memory_bytes=read_size(document, "Memorysize", MEMORY_BYTES_PER_CORE * max(cpu_cores, 1)),
        disk_bytes=read_size(
            document, "Workdirectorysize", DISK_BYTES_PER_CORE * max(cpu_cores, 1)
        ),
        priority=read_whole(document, "Priority", 0, least=-PRIORITY_MAX, most=PRIORITY_MAX),
        price=read_price(document, 1.0, most=PRICE_MAX),
        requirements=_read_requirements(document),
        user=_read_text(document, "User"),
        master_job_id=read_whole(document, "MasterjobID", 0, least=0, most=2**53),
        output_dir=_read_text(document, "OutputDir"),
        tags=_read_tags(document),
        container_image=_read_image(document, where),
        container_image_digest=_read_image_digest(document),
        unknown=unknown_keys(document, variables),
    )


# --- files


class _Files(NamedTuple):
    executable: str
    validation_command: str
    inputs: tuple[InputFile, ...]
    input_data: tuple[InputFile, ...]
    list_name: str


def _read_files(document: Document, where: Whereabouts) -> _Files:
    """Read inputs first, as a program may be the name of one of them."""
    list_name = _read_list_name(document)
    data_words = document.words("InputData", "InputDataCollection")
    staging = Inputs(where, reserved=[list_name] if data_words else [])
    inputs = [staging.add(word) for word in document.words("InputFile", "InputBox")]
    input_data = tuple(staging.add(word) for word in data_words)
    executable = _executable_word(document)
    programs = [staging.add_program(executable, executable.plain().strip())]
    command: list[str] = []
    if (validation := document.word("ValidationCommand")) is not None:
        program, *arguments = validation.plain().split() or [""]
        programs.append(staging.add_program(validation, program))
        command = [programs[-1].called, *arguments]
    inputs += [program.file for program in programs if program.file is not None]
    return _Files(programs[0].called, " ".join(command), tuple(inputs), input_data, list_name)


def _executable_word(document: Document) -> Word:
    word = document.word("Executable")
    if word is None:
        problem = 'this key is missing; add Executable = "program";'
        raise document.origin.error(0, problem, "Executable")
    return word


def _read_outputs(document: Document) -> tuple[OutputSpec, ...]:
    words = document.words("OutputArchive", "OutputFile", "Output")
    return read_outputs(words, is_required=True) or DEFAULT_OUTPUTS


def _read_error_outputs(document: Document) -> tuple[OutputSpec, ...]:
    return read_outputs(document.words("OutputErrorE"), is_required=False) or DEFAULT_ERROR_OUTPUTS


# --- names and texts


def _read_arguments(document: Document) -> tuple[str, ...]:
    """Split a string on white space, as AliEn does; an item of a set is one argument as it is."""
    entry = document.entry("Arguments")
    if entry is None:
        return ()
    texts = tuple(word.plain() for word in entry.words)
    return texts if entry.is_set else tuple(texts[0].split())


def _read_text(document: Document, key: str) -> str:
    word = document.word(key)
    return "" if word is None else word.plain()


def _read_texts(document: Document, key: str) -> tuple[str, ...]:
    return tuple(word.plain() for word in document.words(key))


def _read_name(document: Document, source: str) -> str:
    name, other = document.word("Name"), document.word("JobName")
    if name is not None and other is not None:
        raise name.error("JobName says the same; keep only one of them")
    word = name or other
    return PurePath(source).stem if word is None else word.plain()


def _read_list_name(document: Document) -> str:
    word = document.word("InputDataList")
    return "wn.xml" if word is None else work_file_name(word, word.plain())


def _read_list_format(document: Document) -> str:
    word = document.word("InputDataListFormat")
    if word is None:
        return LIST_FORMATS[0]
    text = word.plain().lower()
    if text not in LIST_FORMATS:
        raise word.error(f"{shown(text)} isn't a format; write {' or '.join(LIST_FORMATS)}")
    return text


def _read_requirements(document: Document) -> str:
    word = document.word("Requirements")
    return "" if word is None else word.text


def _read_tags(document: Document) -> tuple[str, ...]:
    debug = (f"debug:{text}" for text in _read_texts(document, "DebugTag"))
    return (*_read_texts(document, "Jobtag"), *debug)


def _read_image(document: Document, where: Whereabouts) -> str:
    word = document.word("ContainerImage")
    return "" if word is None else image_reference(word, where)


def _read_image_digest(document: Document) -> str:
    word = document.word("ContainerImageDigest")
    return "" if word is None else image_digest(word)


def _read_variables(document: Document) -> dict[str, str]:
    """Give each key that JDLVariables names its value, joined by ``##``.

    A name without a key is an error here, where AliEn says nothing: it is a slip of the pen,
    and a payload that misses its variable finds out after hours on many nodes.
    """
    variables: dict[str, str] = {}
    for word in document.words("JDLVariables"):
        entry = document.entry(word.plain())
        if entry is None:
            raise word.error(
                f"{shown(word.text)} is no key of this JDL; add {shown(word.text)[1:-1]} = ...; "
                "or take it out"
            )
        variables[entry.key.upper()] = "##".join(item.text for item in entry.words)
    return variables
