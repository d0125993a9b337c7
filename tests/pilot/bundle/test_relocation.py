from __future__ import annotations

import importlib.util
import marshal
import re
import struct
from pathlib import Path

import pytest

from pilot.bundle.relocation import copy_binary, copy_bytecode, copy_loader
from tests.pilot.sandbox import script
from transport.errors import OperatorError


def test_a_binary_comes_with_its_libraries(tmp_path: Path) -> None:
    """Each library that the loader lists is copied once, under the name that is asked for."""
    library = tmp_path / "libreal-1.2.so"
    library.write_bytes(b"library")
    loader = script(
        tmp_path / "ld.so",
        f"echo '\tlinux-vdso.so.1 (0x7ff)'; echo '\tlibx.so.1 => {library} (0x7ff)'",
    )
    binary = tmp_path / "binary"
    binary.write_bytes(b"binary")

    missing = copy_binary(binary, tmp_path / "b" / "b", loader=loader, libraries=tmp_path / "so")

    assert missing == ()
    assert (tmp_path / "b" / "b").read_bytes() == b"binary"
    assert [path.name for path in (tmp_path / "so").iterdir()] == ["libx.so.1"]
    assert (tmp_path / "so" / "libx.so.1").read_bytes() == b"library"


def test_the_libc_comes_with_what_it_loads_by_itself(tmp_path: Path) -> None:
    """libgcc_s and its like are in no list, and a thread's end aborts without them."""
    for name in ("libc.so.6", "libgcc_s.so.1"):
        (tmp_path / name).write_bytes(name.encode())
    loader = script(tmp_path / "ld.so", f"echo 'libc.so.6 => {tmp_path}/libc.so.6 (0x7ff)'")

    copy_binary(tmp_path / "ld.so", tmp_path / "b", loader=loader, libraries=tmp_path / "so")

    assert {path.name for path in (tmp_path / "so").iterdir()} == {"libc.so.6", "libgcc_s.so.1"}


def test_a_binary_with_a_missing_library_is_not_copied(tmp_path: Path) -> None:
    """The caller is told what is missing, and nothing is half done."""
    loader = script(tmp_path / "ld.so", "echo '\tlibtk.so => not found'")

    missing = copy_binary(loader, tmp_path / "b", loader=loader, libraries=tmp_path / "so")

    assert missing == ("libtk.so",)
    assert not (tmp_path / "b").exists()


@pytest.mark.parametrize("text", [None, "kill -SEGV $$"])
def test_a_loader_that_does_not_list_is_the_operators_business(
    tmp_path: Path, text: str | None
) -> None:
    """A loader that isn't there, or dies, is named in a sentence."""
    loader = tmp_path / "ld.so"
    if text is not None:
        script(loader, text)

    with pytest.raises(OperatorError, match=re.escape(str(loader))):
        copy_binary(loader, tmp_path / "b", loader=loader, libraries=tmp_path / "so")


@pytest.mark.parametrize("installed", ["none", "fresh", "stale"])
def test_bytecode_belongs_to_the_source_whatever_its_time(tmp_path: Path, installed: str) -> None:
    """Installed bytecode is taken only if Python would; the copy has no time in it."""
    source = tmp_path / "module.py"
    source.write_text("value = 1\n")
    if installed != "none":
        cached = Path(importlib.util.cache_from_source(source, optimization=""))
        cached.parent.mkdir()
        status = source.stat()
        size = status.st_size + (installed == "stale")
        header = importlib.util.MAGIC_NUMBER + struct.pack("<III", 0, int(status.st_mtime), size)
        cached.write_bytes(header + marshal.dumps(compile("value = 2", "x", "exec")))

    copy_bytecode(source, tmp_path / "copy" / "module.pyc")

    content = (tmp_path / "copy" / "module.pyc").read_bytes()
    namespace: dict[str, int] = {}
    exec(marshal.loads(content[16:]), namespace)
    assert content[:8] == importlib.util.MAGIC_NUMBER + b"\1\0\0\0"
    assert content[8:16] == importlib.util.source_hash(source.read_bytes())
    assert namespace["value"] == (2 if installed == "fresh" else 1)


def test_a_copied_loader_reads_no_list_of_the_image(tmp_path: Path) -> None:
    """The path of the list of what to preload is another, as long, that nobody can make."""
    loader = tmp_path / "ld.so"
    loader.write_bytes(b"..\0/etc/ld.so.preload\0..")

    copy_loader(loader, tmp_path / "so" / "ld.so")

    assert (tmp_path / "so" / "ld.so").read_bytes() == b"..\0/dev/null/preloads\0.."
