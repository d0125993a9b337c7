from __future__ import annotations

import errno
import fcntl
import json
import os
import shutil
import stat
import subprocess
import sys
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

import pilot.bundle.build
from pilot.bundle import Bundle, build_bundle
from pilot.bundle.closure import imported_names
from tests.pilot.sandbox import USERS, as_user, public_directory
from transport.errors import OperatorError

pytestmark = pytest.mark.real
REPOSITORY = Path(__file__).parents[3]
BYTES_MAX = 40_000_000

# What a wrapper does with its bundle, in short.
PROGRAM = """
import sys
root = sys.argv[1]
sys.path[:0] = [root + "/app", root + "/site"]
import asyncio, hashlib, json, os, threading, zipfile
import msgspec
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from transport.messages import JobStatusChanged, JobStatus

name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "job 1")])
key = ec.generate_private_key(ec.SECP256R1())
request = x509.CertificateSigningRequestBuilder().subject_name(name).sign(key, hashes.SHA256())
thread = threading.Thread(target=asyncio.run, args=(asyncio.sleep(0),))
thread.start()
thread.join()
print(json.dumps({
    "prefix": sys.prefix,
    "from_elsewhere": [
        module.__file__ for module in sys.modules.values()
        if getattr(module, "__file__", None) and not module.__file__.startswith(root)
        and module.__name__ != "__main__"
    ],
    "request": request.public_bytes(serialization.Encoding.PEM).decode(),
    "sha256": hashlib.sha256(b"x").hexdigest(),
    "message": msgspec.json.encode(JobStatusChanged(status=JobStatus.DONE, at=1.0)).decode(),
    "maps": sorted({
        line.split(None, 5)[5].strip() for line in open("/proc/self/maps") if ".so" in line
    }),
}))
"""


IMPORTING = """
import importlib, sys
root, *names = sys.argv[1:]
sys.path[:0] = [root + "/app", root + "/site"]
for name in names:
    try:
        importlib.import_module(name)
    except ModuleNotFoundError:
        package, _, thing = name.rpartition(".")
        if not hasattr(importlib.import_module(package), thing):
            raise
"""
FIELDS = ("root", "python", "loader", "library_path", "boot")


@pytest.fixture(scope="module")
def place() -> Iterator[Path]:
    """Give a directory that every user may read."""
    with public_directory() as directory:
        yield directory


@pytest.fixture(scope="module")
def bundle(place: Path) -> Bundle:
    """Give a bundle of this interpreter and this checkout."""
    return build_bundle(place / "bundles")


def run_in(bundle: Bundle, place: Path, user: str) -> Mapping[str, object]:
    """Run the program from the bundle with an empty environment."""
    program = place / "program.py"
    program.write_text(PROGRAM)
    python = bundle.command(str(bundle.root))[:-1]
    ran = subprocess.run(
        [*as_user(user), "env", "-i", *python, program, bundle.root],
        capture_output=True,
        text=True,
        check=False,
        cwd="/",
    )
    assert ran.returncode == 0, ran.stderr
    result: Mapping[str, object] = json.loads(ran.stdout)
    return result


@pytest.mark.parametrize("user", USERS)
def test_a_wrapper_runs_from_the_bundle_alone(bundle: Bundle, place: Path, user: str) -> None:
    """Every module and every library comes from the bundle, for root and for others."""
    result = run_in(bundle, place, user)

    assert result["prefix"] == str(bundle.root)
    assert result["from_elsewhere"] == []
    assert str(result["request"]).startswith("-----BEGIN CERTIFICATE REQUEST-----")
    assert isinstance(result["maps"], list)
    assert [path for path in result["maps"] if not path.startswith(str(bundle.root))] == []


def test_the_layout_is_what_the_boot_script_expects(bundle: Bundle) -> None:
    """Our packages are in app, the third party's in site, and both are beside each other."""
    assert {path.name for path in (bundle.root / "app").iterdir()} == {
        "actors",
        "pilot",
        "transport",
    }
    assert {path.name.split(".")[0] for path in (bundle.root / "site").iterdir()} == {
        "_cffi_backend",
        "cryptography",
        "msgspec",
    }
    assert bundle.boot == bundle.root / "app" / "pilot" / "wrapper_boot.py"


def test_the_command_is_that_of_the_place_inside(bundle: Bundle) -> None:
    """A bundle is started by its own loader, from wherever it is seen."""
    assert bundle.command("/tmp/pilot") == (
        f"/tmp/pilot/so/{bundle.loader.name}",
        "--inhibit-cache",
        "--library-path",
        "/tmp/pilot/so",
        f"/tmp/pilot/bin/python{sys.version_info.major}.{sys.version_info.minor}",
        "-I",
        "-S",
        "-X",
        "utf8",
        "/tmp/pilot/app/pilot/wrapper_boot.py",
    )


@pytest.mark.parametrize("place_inside", ["/tmp/a:b", "/tmp/$ORIGIN", "/tmp/a;b"])
def test_a_place_that_the_loader_would_split_is_refused(bundle: Bundle, place_inside: str) -> None:
    """The loader reads a list there, so a separator in a name is not to be had."""
    with pytest.raises(OperatorError, match="can't run from"):
        bundle.command(place_inside)


def test_a_bundle_is_sealed(bundle: Bundle) -> None:
    """All can read it and none can write in it, nothing is a link, and it is small enough."""
    places = [bundle.root, *bundle.root.rglob("*")]
    files = [path for path in places if path.is_file()]

    assert {stat.S_IMODE(path.lstat().st_mode) for path in files} <= {0o444, 0o555}
    assert {stat.S_IMODE(path.stat().st_mode) for path in places if path.is_dir()} == {0o555}
    assert [path for path in places if path.is_symlink()] == []
    assert sum(path.stat().st_size for path in files) <= BYTES_MAX


def test_every_module_that_a_wrapper_imports_is_there(bundle: Bundle, place: Path) -> None:
    """All of ours, and all that these import in whatever function: by importing every one."""
    ours = [
        ".".join(path.relative_to(bundle.root / "app").with_suffix("").parts)
        for path in (bundle.root / "app").rglob("*.py")
    ]
    names = {name.removesuffix(".__init__") for name in ours}
    for path in (bundle.root / "app").rglob("*.py"):
        package = ".".join(path.relative_to(bundle.root / "app").parent.parts)
        names |= {name for name, _ in imported_names(path.read_bytes(), package)}
    program = place / "importing.py"
    program.write_text(IMPORTING)

    ran = subprocess.run(
        [*bundle.command(str(bundle.root))[:-1], program, bundle.root, *sorted(names)],
        capture_output=True,
        text=True,
        check=False,
    )

    assert ran.returncode == 0, ran.stderr
    assert {"pilot.wrapper_process", "actors.job_wrapper", "transport.stdio"} <= names


def test_no_part_of_the_agent_is_in_it(bundle: Bundle) -> None:
    """What is bundled can be read in an image: it is the wrapper's and no more."""
    names = {path.name for path in (bundle.root / "app" / "pilot").iterdir()}

    assert not names & {"node.py", "queue", "cli", "authority.py", "containers", "bundle"}


def test_a_copy_elsewhere_runs_and_stays_as_it_was(bundle: Bundle, tmp_path: Path) -> None:
    """Without its times, in another place, with nothing written into it."""
    copy = tmp_path / "a copy"
    subprocess.run(["cp", "-r", bundle.root, copy], check=True)
    for path in copy.rglob("*"):
        os.utime(path, (1, 1))
    moved = Bundle(
        **{name: copy / getattr(bundle, name).relative_to(bundle.root) for name in FIELDS}
    )
    before = sorted(copy.rglob("*"))

    result = run_in(moved, tmp_path, "")

    assert result["from_elsewhere"] == []
    assert sorted(copy.rglob("*")) == before


def test_all_bytecode_is_valid_whatever_the_time_of_its_source(bundle: Bundle) -> None:
    """Each source of ours has bytecode, and none is held against a source (PEP 552)."""
    bytecode = list(bundle.root.rglob("*.pyc"))
    sources = list((bundle.root / "app").rglob("*.py"))

    assert len([path for path in bytecode if path.is_relative_to(bundle.root / "app")]) == len(
        sources
    )
    assert {path.read_bytes()[4:8] for path in bytecode} == {b"\1\0\0\0"}


def test_the_second_call_finds_the_first_ones_bundle(bundle: Bundle) -> None:
    """Nothing is built or written again."""
    before = bundle.root.parent.stat().st_mtime_ns

    assert build_bundle(bundle.root.parent) == bundle
    assert bundle.root.parent.stat().st_mtime_ns == before


def test_two_builders_make_one_bundle(tmp_path: Path) -> None:
    """The one that comes second waits and takes what the first has built."""
    with ThreadPoolExecutor() as pool:
        first, second = pool.map(build_bundle, [tmp_path, tmp_path])

    assert first == second
    assert {path.name for path in tmp_path.iterdir()} == {first.root.name, "bundle.lock"}


def test_a_changed_source_is_another_bundle(tmp_path: Path) -> None:
    """Our packages are found where they are installed, and their content names the bundle."""
    site = tmp_path / "site"
    for package in ("transport", "actors", "pilot"):
        shutil.copytree(
            REPOSITORY / package, site / package, ignore=shutil.ignore_patterns("__pycache__")
        )

    def build() -> Path:
        code = (
            "import pathlib, sys; from pilot.bundle import build_bundle;"
            "print(build_bundle(pathlib.Path(sys.argv[1])).root)"
        )
        return Path(
            subprocess.run(
                [sys.executable, "-c", code, tmp_path / "bundles"],
                env={"PYTHONPATH": f"{site}:{os.environ.get('PYTHONPATH', '')}"},
                capture_output=True,
                text=True,
                check=True,
                cwd=tmp_path,
            ).stdout.strip()
        )

    before = build()
    for path in site.rglob("*.py"):
        os.utime(path, (1, 1))
    assert build() == before
    (site / "actors" / "added.py").write_text("ADDED = True\n")
    with (site / "actors" / "job_wrapper.py").open("a") as source:
        source.write("import actors.added\n")
    after = build()

    assert after != before
    assert not (before / "app" / "actors" / "added.py").exists()
    assert (after / "app" / "actors" / "added.py").read_text() == "ADDED = True\n"


def test_a_full_disk_leaves_no_half_bundle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The operator is told that there is no room, and the directory is as it was."""

    def no_room(source: Path, target: Path) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(target))

    monkeypatch.setattr(pilot.bundle.build, "copy_bytecode", no_room)

    with pytest.raises(OperatorError, match="no room for a bundle"):
        build_bundle(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["bundle.lock"]


def test_what_a_killed_builder_left_is_removed(tmp_path: Path) -> None:
    """A half bundle never has a bundle's name, and the next builder takes it away."""
    half = tmp_path / "bundle-0123.building-xyz" / "lib"
    half.mkdir(parents=True)

    built = build_bundle(tmp_path)

    assert {path.name for path in tmp_path.iterdir()} == {built.root.name, "bundle.lock"}


def test_waiting_for_another_builder_ends(tmp_path: Path) -> None:
    """A lock that is never given back costs the time that the caller allows, not more."""
    with (tmp_path / "bundle.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with pytest.raises(OperatorError, match=r"bundle\.lock"):
            build_bundle(tmp_path, lock_wait_s=0.2)


@pytest.mark.parametrize(
    ("content", "said"),
    [(b"\x7fELF\x02\x01" + bytes(58), "a static program"), (b"#!/bin/sh", "no ")],
)
def test_a_python_without_glibc_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes, said: str
) -> None:
    """A static interpreter can't be taken apart; the sentence says what to do."""
    python = tmp_path / "python3"
    python.write_bytes(content)
    monkeypatch.setattr(sys, "_base_executable", str(python))

    with pytest.raises(OperatorError, match=rf"{said}.*glibc"):
        build_bundle(tmp_path / "bundles")


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    """A file where the directory should be is the operator's business."""
    (tmp_path / "bundles").write_text("")

    with pytest.raises(OperatorError, match=r"No bundle can be made in .*bundles"):
        build_bundle(tmp_path / "bundles")
