"""What a job saves."""

from __future__ import annotations

from pathlib import Path

import pytest

from pilot.jdl.description import JdlError, parse_jdl
from transport.messages import JobDescription, OutputSpec


def parse(text: str) -> JobDescription:
    """Read a JDL of these entries and a program."""
    text = f'{text} Executable = "/bin/true";'
    return parse_jdl(text, source="job.jdl", directory=Path("/home/anna"))


@pytest.mark.parametrize(
    ("item", "expected"),
    [
        ("a.root", OutputSpec(patterns=("a.root",))),
        ("*.root@disk=3", OutputSpec(patterns=("*.root",), copies=3)),
        ("a.root,b.root@disk:1", OutputSpec(patterns=("a.root", "b.root"), copies=1)),
        (
            "logs.zip:stdout,*.log@ALICE::CERN::EOS, !ALICE::FZK::SE ,disk=1",
            OutputSpec(
                archive="logs.zip",
                patterns=("stdout", "*.log"),
                copies=1,
                prefer=("ALICE::CERN::EOS",),
                exclude=("ALICE::FZK::SE",),
            ),
        ),
        ("a@b.root@disk=1", OutputSpec(patterns=("a@b.root",), copies=1)),
        (
            "logs.zip:stdout,stderr",
            OutputSpec(archive="logs.zip", patterns=("stdout", "stderr"), is_required=False),
        ),
    ],
)
@pytest.mark.parametrize("key", ["Output", "OutputFile", "OutputArchive"])
def test_an_item_says_files_archive_and_options(key: str, item: str, expected: OutputSpec) -> None:
    """All three keys take the same items; nobody is blamed for a missing stdout."""
    assert parse(f'{key} = "{item}";').outputs == (expected,)


def test_all_keys_are_saved_together() -> None:
    """Archives come first, so that what is in one isn't saved again."""
    job = parse('Output = "c"; OutputFile = {"b"}; OutputArchive = {"a.zip:x", "z.zip:y"};')

    assert [spec.archive or spec.patterns[0] for spec in job.outputs] == [
        "a.zip",
        "z.zip",
        "b",
        "c",
    ]


def test_without_output_the_default_archive_is_saved() -> None:
    """The wrapper appends the job's id to its name; after an error it is the logs."""
    job = parse("")

    assert job.outputs == (
        OutputSpec(
            archive="jalien_defarchNOSPEC",
            patterns=("stdout", "stderr", "resources"),
            is_required=False,
        ),
    )
    assert job.error_outputs == (
        OutputSpec(archive="log_archive.zip", patterns=("std*",), copies=1, is_required=False),
    )


def test_error_outputs_are_never_required() -> None:
    """The job has failed already: a missing file is no second failure."""
    job = parse('OutputErrorE = {"core.zip:core*,*.log@disk=1"};')

    assert job.error_outputs == (
        OutputSpec(archive="core.zip", patterns=("core*", "*.log"), copies=1, is_required=False),
    )


@pytest.mark.parametrize(
    ("item", "why"),
    [
        ("/etc/passwd", "isn't in the work directory"),
        ("../a.root", "isn't in the work directory"),
        ("a.zip:x/../../y", "isn't in the work directory"),
        ("../a.zip:x", "isn't in the work directory"),
        ("/tmp/a.zip:x", "isn't in the work directory"),
        (":x", "isn't in the work directory"),
        ("a.zip:", "isn't in the work directory"),
        ("", "isn't in the work directory"),
        ("a,,b", "isn't in the work directory"),
        ("a@disk=0", "isn't a number of copies"),
        ("a@disk=10", "isn't a number of copies"),
        ("a@tape=1", 'the option "tape=1" isn\'t known'),
        ("a@disk", 'the option "disk" isn\'t known'),
    ],
)
@pytest.mark.parametrize("key", ["OutputFile", "OutputErrorE"])
def test_a_wrong_item_is_refused_with_its_place(key: str, item: str, why: str) -> None:
    """Nothing outside the work directory is ever saved."""
    with pytest.raises(JdlError) as caught:
        parse(f'{key} = {{"{item}"}};')

    assert str(caught.value).startswith(f"job.jdl:1:{len(key) + 5}: {key}: ")
    assert why in str(caught.value)


def test_two_archives_of_one_name_are_refused() -> None:
    """One would overwrite the other."""
    with pytest.raises(JdlError, match=r'two archives are called "a\.zip"'):
        parse('OutputArchive = {"a.zip:x", "a.zip:y"};')
