"""Where the names in a JDL lead."""

from __future__ import annotations

from pathlib import Path

import pytest

from pilot.jdl.description import JdlError, parse_jdl
from transport.messages import InputFile, JobDescription

CATALOGUE = {
    "/alice": Path("/mirror"),
    "/alice/cern.ch/user": Path("/homes"),
    "/exp/": Path("/data/exp"),
}


def parse(text: str, catalogue: dict[str, Path] = CATALOGUE) -> JobDescription:
    """Read a JDL, given a program if it names none."""
    if "Executable" not in text:
        text += 'Executable = "/bin/true";'
    return parse_jdl(text, source="job.jdl", directory=Path("/home/anna"), catalogue=catalogue)


def refusal(text: str, catalogue: dict[str, Path] = CATALOGUE) -> str:
    """Return what the user is told."""
    with pytest.raises(JdlError) as caught:
        parse(text, catalogue)
    return str(caught.value)


@pytest.mark.parametrize(
    ("written", "called", "source", "lfn"),
    [
        ("simulate.py", "./simulate.py", "/home/anna/simulate.py", ""),
        ("./bin/run.sh", "./run.sh", "/home/anna/bin/run.sh", ""),
        ("../run.sh", "./run.sh", "/home/anna/../run.sh", ""),
        (
            "/alice/cern.ch/user/a/anna/bin/run.sh",
            "./run.sh",
            "/homes/a/anna/bin/run.sh",
            "/alice/cern.ch/user/a/anna/bin/run.sh",
        ),
        ("LF:/exp/run.sh", "./run.sh", "/data/exp/run.sh", "/exp/run.sh"),
    ],
)
def test_a_program_that_is_not_the_nodes_own_is_staged_in(
    written: str, called: str, source: str, lfn: str
) -> None:
    """Beside the JDL or in the catalogue: it becomes an input and is called ./name."""
    job = parse(f'Executable = "{written}";')

    assert job.executable == called
    assert job.inputs == (InputFile(name=called[2:], source=source, catalogue_name=lfn),)


@pytest.mark.parametrize("path", ["/bin/sh", "/cvmfs/alice.cern.ch/bin/aliroot", "/experiment/run"])
def test_a_program_of_the_node_is_called_by_its_path(path: str) -> None:
    """An absolute path outside the catalogue is the node's or the image's."""
    job = parse(f'Executable = "{path}";')

    assert (job.executable, job.inputs) == (path, ())


def test_a_bare_program_name_means_the_input_of_that_name() -> None:
    """The usual AliEn pair: the script is in InputFile, Executable names it."""
    job = parse('InputFile = "LF:/exp/run.sh"; Executable = "run.sh";')

    assert job.executable == "./run.sh"
    assert [file.source for file in job.inputs] == ["/data/exp/run.sh"]


def test_validation_keeps_its_arguments_and_may_be_the_executable() -> None:
    """The program's name is rewritten, the rest stays; one file is staged once."""
    job = parse('Executable = "bin/run.sh"; ValidationCommand = "bin/run.sh  --check 5";')

    assert job.validation_command == "./run.sh --check 5"
    assert len(job.inputs) == 1


def test_validation_of_its_own_is_staged_in_too() -> None:
    """It follows the rule of Executable."""
    job = parse('ValidationCommand = "LF:/exp/validation.sh";')

    assert job.validation_command == "./validation.sh"
    assert job.inputs[0].catalogue_name == "/exp/validation.sh"


def test_inputs_come_from_the_longest_prefix() -> None:
    """The catalogue's more particular directory wins; the JDL's order is kept."""
    job = parse(
        'InputFile = {"LF:/alice/data/a.root", "/alice/cern.ch/user/b.root", "c.json"};'
        'InputBox = "/etc/d.conf";'
    )

    assert [(file.name, file.source) for file in job.inputs] == [
        ("a.root", "/mirror/data/a.root"),
        ("b.root", "/homes/b.root"),
        ("c.json", "/home/anna/c.json"),
        ("d.conf", "/etc/d.conf"),
    ]


def test_data_that_is_not_downloaded_may_share_a_name() -> None:
    """AliESDs.root of a hundred directories is what nodownload is for."""
    job = parse(
        'InputData = {"LF:/exp/1/ESDs.root,nodownload", "LF:/exp/2/ESDs.root , NoDownload"};'
        'InputDataCollection = "LF:/exp/list.xml";'
    )

    assert [(file.source, file.is_staged) for file in job.input_data] == [
        ("/data/exp/1/ESDs.root", False),
        ("/data/exp/2/ESDs.root", False),
        ("/data/exp/list.xml", True),
    ]


@pytest.mark.parametrize(
    "text",
    [
        'InputFile = {"a/x.C", "b/x.C"};',
        'InputFile = "a/x.C"; InputData = "LF:/exp/x.C";',
        'InputFile = "a/x.C"; Executable = "b/x.C";',
        'InputFile = {"x.C", "x.C"};',
    ],
)
def test_two_files_of_one_name_are_refused(text: str) -> None:
    """One would silently overwrite the other in the work directory."""
    assert 'would both be called "x.C"' in refusal(text)


@pytest.mark.parametrize("name", ["stdout", "resources", "tmp"])
def test_the_wrappers_own_names_are_refused(name: str) -> None:
    """An input called stdout would be overwritten by the payload's."""
    assert "the job itself writes" in refusal(f'InputFile = "in/{name}";')


def test_the_data_list_name_is_reserved_where_there_is_data() -> None:
    """Without InputData no list is written, and wn.xml is a name like any other."""
    assert "the job itself writes" in refusal('InputFile = "wn.xml"; InputData = "LF:/exp/a";')
    assert parse('InputFile = "wn.xml";').inputs[0].name == "wn.xml"


def test_a_catalogue_name_without_a_directory_names_the_setting() -> None:
    """Whoever runs a grid JDL at home learns which setting to make."""
    expected = (
        "job.jdl:1:14: InputFile: no directory stands for the catalogue name "
        '"/alice/a.root"; add its prefix to the setting `catalogue`'
    )

    assert refusal('InputFile = {"/alice/a.root"};', {}) == expected
    assert "setting `catalogue`" in refusal('Executable = "LF:/else/run.sh";')


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("LF:/exp/../../etc/passwd", "isn't a full catalogue name"),
        ("/alice/../etc/passwd", "isn't a full catalogue name"),
        ("LF:run.sh", "isn't a full catalogue name"),
        ("dir/", "names no file"),
        ("", "names no file"),
        ("..", "names no file"),
        ("https://host/a.root", "is a URL"),
        ("x" * 256, "is longer than 255 bytes"),
    ],
)
def test_names_that_lead_nowhere_are_refused(name: str, why: str) -> None:
    """As an input, as the executable and as the validation alike."""
    assert why in refusal(f'InputFile = "{name}";')
    assert why in refusal(f'Executable = "{name}";')
    assert why in refusal(f'ValidationCommand = "{name}";')


@pytest.mark.parametrize(
    ("written", "image"),
    [
        ("slc9.sif", "/home/anna/slc9.sif"),
        ("./alma:9", "/home/anna/alma:9"),
        ("/cvmfs/unpacked/alma9", "/cvmfs/unpacked/alma9"),
        ("LF:/exp/slc9.sif", "/data/exp/slc9.sif"),
        ("docker://almalinux:9", "docker://almalinux:9"),
        ("registry.cern.ch/alice/slc9:latest", "registry.cern.ch/alice/slc9:latest"),
        ("oci-archive:slc9.tar", "oci-archive:/home/anna/slc9.tar"),
        ("oci-archive:/x/slc9.tar:1", "oci-archive:/x/slc9.tar:1"),
        ("docker-archive:LF:/exp/slc9.tar:v1", "docker-archive:/data/exp/slc9.tar:v1"),
    ],
)
def test_an_image_is_a_path_or_a_reference(written: str, image: str) -> None:
    """A path becomes absolute, as the node doesn't know where the JDL was."""
    assert parse(f'ContainerImage = "{written}";').container_image == image


def test_an_image_without_a_name_is_refused() -> None:
    """An empty string is a slip, not a wish for no image."""
    assert "the image has no name" in refusal('ContainerImage = "";')


@pytest.mark.parametrize(
    ("written", "problem"),
    [
        ("docker://Alma/x", "names in a registry are in lower case"),
        ("library://alma", "nothing is known of library: images"),
        ("alma@sha256:12", "after the @ belongs sha256:"),
    ],
)
def test_an_image_that_means_nothing_is_refused(written: str, problem: str) -> None:
    """At submission, with the place, and not on a node hours later."""
    said = refusal(f'ContainerImage = "{written}";')

    assert problem in said
    assert "ContainerImage: the container image" in said


def test_a_digest_may_be_required() -> None:
    """Written as registries write it; anything else is a slip."""
    digest = "sha256:" + "0123456789abcdef" * 4

    assert parse(f'ContainerImageDigest = "{digest}";').container_image_digest == digest
    assert parse("").container_image_digest == ""
    assert "is no digest; write sha256:" in refusal('ContainerImageDigest = "sha256:12";')
