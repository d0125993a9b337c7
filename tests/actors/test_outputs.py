"""Which outputs are saved, by how the job ended."""

from __future__ import annotations

import pytest

from actors.outputs import (
    OUTPUTS_MAX,
    OUTPUTS_TEXT_MAX,
    listable,
    outputs_to_save,
    staged_out,
)
from transport.messages import FileStaged, JobDescription, OutputSpec, SavedFile

ROOT_FILES = OutputSpec(archive="root_archive.zip", patterns=("*.root",))
LOGS = OutputSpec(archive="log_archive.zip", patterns=("std*",), copies=1, is_required=False)


def saved(
    *outputs: OutputSpec, errors: tuple[OutputSpec, ...] = (), has_failed: bool = False
) -> tuple[OutputSpec, ...]:
    """Return what job 7 saves."""
    description = JobDescription(executable="x", outputs=outputs, error_outputs=errors)
    return outputs_to_save(description, job_id=7, has_failed=has_failed)


def test_a_job_that_ended_well_saves_its_outputs_and_its_logs() -> None:
    """Nobody has to ask for stdout and stderr."""
    assert saved(ROOT_FILES) == (ROOT_FILES, LOGS)


def test_a_failed_job_saves_its_error_outputs_only() -> None:
    """Its results are not to be mistaken for good ones."""
    errors = OutputSpec(patterns=("core.*",))

    assert saved(ROOT_FILES, errors=(errors,), has_failed=True) == (errors, LOGS)
    assert saved(ROOT_FILES, errors=(errors,)) == (ROOT_FILES, LOGS)


def test_a_job_that_named_nothing_saves_its_logs() -> None:
    """Whether it failed or not."""
    assert saved() == (LOGS,)
    assert saved(ROOT_FILES, has_failed=True) == (LOGS,)


@pytest.mark.parametrize(
    "specs",
    [
        (OutputSpec(archive="l.zip", patterns=("std*", "*.log")),),
        (OutputSpec(patterns=("*",)),),
        (OutputSpec(archive="l.zip", patterns=("stdout", "stderr")),),
        (OutputSpec(patterns=("stdout",)), OutputSpec(archive="e.zip", patterns=("stderr",))),
    ],
    ids=["std*", "*", "both", "apart"],
)
def test_logs_that_are_asked_for_are_not_added_again(specs: tuple[OutputSpec, ...]) -> None:
    """Wherever the user wanted them, they are there."""
    assert saved(*specs) == specs


def test_one_of_the_logs_is_not_both() -> None:
    """Who names stdout alone gets stderr as well."""
    stdout = OutputSpec(patterns=("stdout",))

    assert saved(stdout) == (stdout, LOGS)


def test_logs_join_a_user_s_archive_of_the_same_name() -> None:
    """A second archive of that name would be left out, and the logs lost with it."""
    users = OutputSpec(archive="log_archive.zip", patterns=("*.log", "stdout"), copies=3)

    (joined,) = saved(users)

    assert (joined.archive, joined.copies) == ("log_archive.zip", 3)
    assert joined.patterns == ("*.log", "stdout", "std*")


def test_the_unnamed_archive_is_given_the_job_s_id() -> None:
    """AliEn's name for the archive of a job that named no output."""
    unnamed = OutputSpec(archive="jalien_defarchNOSPEC", patterns=("stdout", "stderr"))

    assert [spec.archive for spec in saved(unnamed)] == ["jalien_defarchNOSPEC.7"]


def file(name: str = "a") -> SavedFile:
    """Return a saved file whose location is as long as its name."""
    return SavedFile(name=name, bytes=1, sha256="s", adler32="d", location=name)


def test_a_list_of_saved_files_is_told_whole_where_it_fits() -> None:
    """Up to the last file that may be named."""
    assert listable([]) == ()
    assert listable([file()] * OUTPUTS_MAX) == (file(),) * OUTPUTS_MAX


def test_a_list_that_would_not_fit_a_frame_is_cut() -> None:
    """By the number of its files, and by the length of their names."""
    long = file("n" * (OUTPUTS_TEXT_MAX // 4))

    assert len(listable([file()] * (OUTPUTS_MAX + 1))) == OUTPUTS_MAX
    assert listable([long, long, file()]) == (long, long)


def test_a_saved_file_is_told_as_staged_out() -> None:
    """With what the agent needs to find and to check it."""
    told = staged_out(file("a.zip"))

    assert told == FileStaged(
        direction="out", name="a.zip", bytes=1, sha256="s", adler32="d", location="a.zip"
    )
