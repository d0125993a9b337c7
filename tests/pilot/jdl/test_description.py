"""What a JDL asks for: the whole description, its numbers, variables and unknown keys."""

from __future__ import annotations

import time
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pilot.jdl.description import KNOWN_KEYS, JdlError, parse_jdl, unknown_keys_note
from transport.messages import InputFile, JobDescription, OutputSpec

EXECUTABLE = 'Executable = "/bin/true"'

SIMULATION = r"""
# A production of the kind that a physics group submits.
[
  User = "aliprod";
  Jobtag = {"comment:Pb-Pb, 5.02 TeV, LHC18q anchored"};
  Packages = {"VO_ALICE@AliDPG::prod-202305-01-1", "VO_ALICE@O2sim::v20230413-1"};
  Executable = "/alice/cern.ch/user/a/aliprod/bin/aliroot_dpgsim.sh";
  Arguments = "--run 296622   --mode full --title \"Pb Pb\"";
  ValidationCommand = "/alice/cern.ch/user/a/aliprod/validation.sh --strict";
  InputFile = {"LF:/alice/cern.ch/user/a/aliprod/LHC20e3/main.C", "cuts.json"};
  InputData = {
    "LF:/alice/data/2018/000296622/001/AliESDs.root,nodownload",
    "LF:/alice/data/2018/000296622/002/AliESDs.root,nodownload"
  };
  InputDataListFormat = "xml-single";
  JDLVariables = {"Packages", "OutputDir", "LPMRunNumber"};
  LPMRunNumber = 296622;
  OutputDir = "/alice/sim/2020/LHC20e3/296622/#alien_counter_03i#";
  OutputArchive = {
    "log_archive.zip:stdout,stderr,*.log@disk=1",
    "root_archive.zip:galice.root,AliESDs.root@disk=2,ALICE::CERN::EOS"
  };
  OutputErrorE = {"log_archive.zip:*.log,stdout,stderr,core*@disk=1"};
  Requirements = member(other.GridPartitions, "multicore_8") && ( other.TTL > 72000 )
      && ( other.CVMFS_Revision >= 21570 );
  TTL = "72000";
  CPUCores = "8";
  MemorySize = "64GB";
  WorkDirectorySize = "100GB";
  Price = 1.5;
  MasterJobId = 2731839123;
  Split = "production:1-200";
  Typ = "Job"
]
"""


def parse(text: str, source: str = "job.jdl") -> JobDescription:
    """Read a JDL beside which the user works, with the catalogue mirrored."""
    return parse_jdl(
        text,
        source=source,
        directory=Path("/home/anna"),
        catalogue={"/alice": Path("/mirror")},
    )


def parse_with(text: str) -> JobDescription:
    """Read one with this entry and a program."""
    return parse(f"{text}; {EXECUTABLE}")


def refusal(text: str) -> str:
    """Return what the user is told."""
    with pytest.raises(JdlError) as caught:
        parse(text)
    return str(caught.value)


def test_a_production_jdl_is_read_whole() -> None:
    """A real simulation job, with every part of the dialect that such jobs use."""
    user = "/alice/cern.ch/user/a/aliprod"
    packages = ("VO_ALICE@AliDPG::prod-202305-01-1", "VO_ALICE@O2sim::v20230413-1")
    output_dir = "/alice/sim/2020/LHC20e3/296622/#alien_counter_03i#"

    def grid_file(lfn: str, *, is_staged: bool = True) -> InputFile:
        return InputFile(
            name=lfn.rpartition("/")[2],
            source=lfn.replace("/alice", "/mirror", 1),
            is_staged=is_staged,
            catalogue_name=lfn,
        )

    assert parse(SIMULATION, "/jobs/LHC20e3.jdl") == JobDescription(
        executable="./aliroot_dpgsim.sh",
        arguments=("--run", "296622", "--mode", "full", "--title", '"Pb', 'Pb"'),
        name="LHC20e3",
        validation_command="./validation.sh --strict",
        inputs=(
            grid_file(f"{user}/LHC20e3/main.C"),
            InputFile(name="cuts.json", source="/home/anna/cuts.json"),
            grid_file(f"{user}/bin/aliroot_dpgsim.sh"),
            grid_file(f"{user}/validation.sh"),
        ),
        input_data=(
            grid_file("/alice/data/2018/000296622/001/AliESDs.root", is_staged=False),
            grid_file("/alice/data/2018/000296622/002/AliESDs.root", is_staged=False),
        ),
        outputs=(
            OutputSpec(archive="log_archive.zip", patterns=("stdout", "stderr", "*.log"), copies=1),
            OutputSpec(
                archive="root_archive.zip",
                patterns=("galice.root", "AliESDs.root"),
                prefer=("ALICE::CERN::EOS",),
            ),
        ),
        error_outputs=(
            OutputSpec(
                archive="log_archive.zip",
                patterns=("*.log", "stdout", "stderr", "core*"),
                copies=1,
                is_required=False,
            ),
        ),
        variables={
            "PACKAGES": "##".join(packages),
            "OUTPUTDIR": output_dir,
            "LPMRUNNUMBER": "296622",
        },
        packages=packages,
        ttl_s=72000,
        cpu_cores=8,
        memory_bytes=64 * 10**9,
        disk_bytes=100 * 10**9,
        price=1.5,
        requirements=(
            'member(other.GridPartitions, "multicore_8") && ( other.TTL > 72000 ) '
            "&& ( other.CVMFS_Revision >= 21570 )"
        ),
        user="aliprod",
        master_job_id=2731839123,
        output_dir=output_dir,
        tags=("comment:Pb-Pb, 5.02 TeV, LHC18q anchored",),
        unknown={"Split": '"production:1-200"', "Typ": '"Job"'},
    )


def test_a_short_jdl_gets_the_dialects_defaults() -> None:
    """An executable is all that a job needs."""
    job = parse('Executable = "/bin/true"', source="dir/first.try.jdl")

    assert (job.name, job.ttl_s, job.cpu_cores, job.price) == ("first.try", 21600, 1, 1.0)
    assert (job.memory_bytes, job.disk_bytes) == (8 * 10**9, 10 * 10**9)
    assert (job.input_data_list, job.input_data_list_format) == ("wn.xml", "xml-single")
    assert job.unknown == {}


@pytest.mark.parametrize(("cores", "factor"), [(0, 1), (1, 1), (8, 8)])
def test_memory_and_disk_default_to_so_much_a_core(cores: int, factor: int) -> None:
    """A whole node (0) asks for one core's: its size is the node's to know."""
    job = parse_with(f"CPUCores = {cores}")

    assert job.memory_bytes == factor * 8 * 10**9
    assert job.disk_bytes == factor * 10 * 10**9


def test_a_missing_executable_is_named() -> None:
    """An empty JDL is the shortest of them."""
    assert refusal("# nothing") == (
        'job.jdl:1:1: Executable: this key is missing; add Executable = "program";'
    )


def test_arguments_of_a_set_are_kept_whole() -> None:
    """A string is split on white space as in AliEn; a set is for arguments with spaces."""
    assert parse_with('Arguments = " a  b\tc "').arguments == ("a", "b", "c")
    assert parse_with('Arguments = {"a b", "", 5}').arguments == ("a b", "", "5")
    assert parse_with("Arguments = 5").arguments == ("5",)


@pytest.mark.parametrize(
    ("written", "size"),
    [
        ('"8GB"', 8 * 10**9),
        ("8GB", 8 * 10**9),
        ('"500MB"', 500 * 10**6),
        ('"1.5 gb"', 15 * 10**8),
        ("2000", 2000 * 10**6),
        ('"64KB"', 64000),
        ('"1G"', 10**9),
        ('"2GiB"', 2 << 30),
        ('"1TiB"', 1 << 40),
        ('"1024B"', 1024),
        ('"1PB"', 10**15),
    ],
)
def test_sizes_have_decimal_or_binary_units(written: str, size: int) -> None:
    """A bare number is in MB, as in AliEn."""
    assert parse_with(f"Memorysize = {written}").memory_bytes == size
    assert parse_with(f"Workdirectorysize = {written}").disk_bytes == size


@pytest.mark.parametrize(
    ("key", "value"),
    [
        *(
            (key, value)
            for key in ("Memorysize", "Workdirectorysize")
            for value in (
                "0",
                "-8GB",
                "NaN",
                "inf",
                "2PB",
                "0.0001B",
                "8XB",
                "8\u212aB",
                "9" * 40,
                "",
            )
        ),
        *(("TTL", value) for value in ("0", "-1", "1.5", "1h", "15552001", "9" * 5000, "NaN")),
        *(("CPUCores", value) for value in ("-1", "1025", "many")),
        *(("Price", value) for value in ("-1", "NaN", "1e3", "10000000")),
        *(("Priority", value) for value in ("high", "1000001")),
        ("MasterjobID", "-5"),
        ("InputDataListFormat", "yaml"),
        ("InputDataList", "../wn.xml"),
    ],
)
def test_a_value_out_of_bounds_is_refused_with_its_place(key: str, value: str) -> None:
    """The sentence names the key, shows the value and says what to write."""
    text = refusal(f'Executable = "/bin/true";\n{key} = "{value}";')

    assert text.startswith(f"job.jdl:2:{len(key) + 4}: {key}: ")
    assert "; write " in text
    assert len(text) < 250


def test_a_sentence_with_spaces_needs_quotes() -> None:
    """Only Requirements and keys of the user's own are expressions."""
    assert refusal("Executable = /bin/echo hello;") == (
        'job.jdl:1:14: Executable: "/bin/echo hello" must be in quotes; write Executable = "...";'
    )


def test_the_list_format_has_no_case() -> None:
    """XML-single is what many JDLs say."""
    job = parse_with('InputDataListFormat = "XML-single"; InputDataList = "data.xml"')

    assert (job.input_data_list_format, job.input_data_list) == ("xml-single", "data.xml")


def test_a_job_has_one_name() -> None:
    """Name and JobName are the same key in two spellings."""
    assert parse_with('Name = "toy"').name == "toy"
    assert parse_with('JobName = "toy"').name == "toy"
    assert "JobName says the same" in refusal('Executable = "/bin/true"; Name = "a"; JobName = "b"')


def test_debug_tags_are_tags() -> None:
    """They stand among the others in the form that job tags have."""
    job = parse_with('Jobtag = {"comment:x"}; DebugTag = 3')

    assert job.tags == ("comment:x", "debug:3")


def test_variables_take_the_values_of_their_keys() -> None:
    """Names are upper-cased, lists joined, expressions kept; the user's own keys are known then."""
    job = parse_with(
        'JDLVariables = {"Mine", "InputFile", "requirements"}; mine = {"a", 2};'
        'InputFile = {"x", "y"}; Requirements = other.TTL > 5'
    )

    assert job.variables == {"MINE": "a##2", "INPUTFILE": "x##y", "REQUIREMENTS": "other.TTL > 5"}
    assert job.unknown == {}


def test_a_variable_without_its_key_is_refused() -> None:
    """A misspelt name would otherwise be found by the payload, hours later."""
    assert refusal('Executable = "/bin/true"; JDLVariables = "Mien";') == (
        'job.jdl:1:42: JDLVariables: "Mien" is no key of this JDL; add Mien = ...; or take it out'
    )


def test_unknown_keys_are_noted_with_the_nearest_known_one() -> None:
    """A slip is pointed out; keys of other tools are just listed."""
    job = parse_with('ValidationComand = "x"; LPMPass = 1; SplitMode = {"a", "b"}')

    assert job.unknown == {"ValidationComand": '"x"', "LPMPass": "1", "SplitMode": '{"a", "b"}'}
    assert unknown_keys_note(job) == (
        "keys without an effect here: ValidationComand (did you mean ValidationCommand?), "
        "LPMPass, SplitMode (splitting is the broker's; this runs as one job)"
    )


def test_no_unknown_keys_no_note() -> None:
    """Nothing is said where there is nothing to say."""
    assert unknown_keys_note(parse_with("TTL = 5")) == ""


def test_a_note_on_many_keys_is_short() -> None:
    """However many and however long the keys are."""
    job = parse_with(";".join(f"{'k' * 5000}{i} = 1" for i in range(50)))

    assert unknown_keys_note(job).endswith("and 30 more")
    assert len(unknown_keys_note(job)) < 2000


@pytest.mark.parametrize(
    "unit", [" ", ",", "/", "a/", "a ", "@", ":", "0", ".", "::a", "a,", "\\\\"]
)
@pytest.mark.parametrize("start", ["", "a@disk", "LF:/alice/a"])
def test_a_very_long_value_is_answered_at_once(start: str, unit: str) -> None:
    """Whatever the key does with it; a regular expression once took hours over the spaces."""
    value = start + unit * (2 * 10**5 // len(unit)) + "b"
    began = time.process_time()
    for key in (
        "InputData",
        "OutputFile",
        "Memorysize",
        "ContainerImage",
        "Arguments",
        "Executable",
    ):
        try:
            parse(f'{key} = "{value}"; {"" if key == "Executable" else EXECUTABLE}')
        except JdlError as error:
            assert len(str(error)) < 300  # noqa: PT017 - either answer is right, if it is short
    assert time.process_time() - began < 10


VALUES = st.sampled_from(
    ['"x"', '"/bin/sh"', "{}", '{"a:b,c@disk=1"}', "5", '"8GB"', '"LF:/alice/a,nodownload"', "f(x)"]
)
ENTRIES = st.builds("{} = {};".format, st.sampled_from(KNOWN_KEYS), VALUES | st.text(max_size=20))


@given(st.text() | st.lists(ENTRIES, max_size=8).map("\n".join))
def test_any_text_gives_a_description_or_a_jdl_error(text: str) -> None:
    """And every description can be sent: it survives the wire unchanged."""
    try:
        job = parse(text)
    except JdlError as error:
        assert str(error).startswith("job.jdl:")  # noqa: PT017 - either answer is right
    else:
        assert msgspec.msgpack.decode(msgspec.msgpack.encode(job), type=JobDescription) == job
