"""The wrapper's first lines: take the protocol's descriptors away from everybody else.

Run as a script by an interpreter with ``-I -S``: the agent's own when bare, the bundle's in a
container. It must not import anything of ours, or anything heavy, before `claim_stdio`: a
library that prints at import time would print into the protocol (facts of 2018).

    wrapper_boot.py run PATH...           speak the protocol over stdin and stdout
    wrapper_boot.py check NONCE DIR...    print, as one line of JSON, where it finds itself, and
                                          what NONCE each directory holds in a file of that name
    wrapper_boot.py confined WORD... -- run PATH...    (or check) the same, but first enter what the
                                          words say (`pilot.confinement.plan`)

PATH... are directories for sys.path; the one above this package comes first, and a bundle's
``site`` is found beside it.
"""

import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pilot.confinement.plan import Held


def claim_stdio() -> tuple[int, int]:
    """Move the protocol to new descriptors, not inherited by any child.

    After it fd 0 is /dev/null and fd 1 is stderr, so that a stray print of whatever library,
    C code or grandchild is a line in the wrapper's log and nothing else.
    """
    read_fd, write_fd = os.dup(0), os.dup(1)
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.close(null)
    os.dup2(2, 1)
    return read_fd, write_fd


def find_modules(paths: list[str]) -> None:
    """Set sys.path up: our packages, the bundle's third-party modules, then ``paths``."""
    root = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    beside = os.path.join(os.path.dirname(root), "site")
    found = [root, *([beside] if os.path.isdir(beside) else []), *paths]
    # A script's own directory isn't ours to import from: -I keeps it off the path.
    sys.path[:0] = [path for path in found if path not in sys.path]


def check(nonce: str, directories: list[str]) -> None:
    """Print what a verification wants to know of this place."""
    import json

    status = dict(line.split(":", 1) for line in _lines("/proc/self/status") if ":" in line)
    kinds = ("cgroup", "ipc", "mnt", "net", "pid", "user", "uts")
    text = json.dumps(
        {
            "nonce": nonce,
            "pid": os.getpid(),
            "namespaces": {
                kind: os.stat(f"/proc/self/ns/{kind}").st_ino
                for kind in kinds
                if os.path.exists(f"/proc/self/ns/{kind}")
            },
            "uid": os.getuid(),
            "uid_map": "; ".join(" ".join(line.split()) for line in _lines("/proc/self/uid_map")),
            "cgroup": "; ".join(line.strip() for line in _lines("/proc/self/cgroup")),
            "mounts": len(_lines("/proc/self/mountinfo")),
            "no_new_privileges": status.get("NoNewPrivs", "").strip() == "1",
            "python": sys.version.split()[0],
            "directories": [
                {
                    "path": path,
                    "nonce": "".join(_lines(os.path.join(path, "nonce")))[:64],
                    "is_writable": _is_writable(path),
                }
                for path in directories
            ],
        }
    )
    os.write(1, text.encode() + b"\n")


def _is_writable(path: str) -> bool:
    """Try it: neither a mode nor access(2) tells what Landlock says."""
    name = os.path.join(path, f".check-{os.getpid()}")
    try:
        os.close(os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
        os.unlink(name)
    except OSError:
        return False
    return True


def _lines(path: str) -> list[str]:
    try:
        with open(path, errors="replace") as file:
            return file.readlines()
    except OSError:
        return []


def confined(words: list[str], descriptors: tuple[int, ...]) -> "Held | None":
    """Enter what the words say, if any; ``descriptors`` are for who goes on from here alone."""
    if not words:
        return None
    find_modules([])
    from pilot.confinement.plan import parsed
    from pilot.confinement.stage import enter

    return enter(parsed(words), descriptors)


def main() -> None:
    """Do what the arguments say."""
    words, arguments = [], sys.argv[1:]
    if arguments[0] == "confined":
        end = arguments.index("--")
        words, arguments = arguments[1:end], arguments[end + 1 :]
    what, *arguments = arguments
    if what == "check":
        confined(words, ())
        check(arguments[0], arguments[1:])
        return
    read_fd, write_fd = claim_stdio()
    held = confined(words, (read_fd, write_fd))
    # OpenSSL would look for its configuration and its modules where the image says.
    os.environ.update(OPENSSL_CONF=os.devnull, CRYPTOGRAPHY_OPENSSL_NO_LEGACY="1")
    # asyncio and msgspec do without these, which cost 25 ms: nothing here speaks TLS.
    # None in their place, which the stubs don't know of, makes importing them an error.
    sys.modules.update(dict.fromkeys(("ssl", "typing_extensions")))  # type: ignore[arg-type]
    find_modules(arguments)
    from pilot.wrapper_process import run_wrapper

    sys.exit(run_wrapper(read_fd, write_fd, held))


if __name__ == "__main__":
    main()
