"""A root of the launch's own, put together from an image directory's entries.

A runtime that takes a directory for the root as it is can make no mount point in there: it is
read-only, or it is the image itself, which is not ours to change. So the root is an empty
directory of the launch's own, and each of the image's top-level entries, and each of its /etc,
is bound into it, read-only: an underlay by hand, which needs neither overlay nor any right
that a bind doesn't need. In that root every mount point that isn't below one of the image's
own directories can be made, /proc and /etc/resolv.conf among them.

What is in the image is not known until the launch, so a few lines of shell look, and then
become the runtime. Of the image they believe nothing: a symbolic link is made again inside,
never followed outside, where it may lead to the pilot's keys.
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence

from pilot.containers.runtime import Cause, Reason, checked_image

_LEFT_OUT = (
    "/dev",
    "/etc",
    "/proc",
    "/run",
    "/sys",
    "/tmp",  # noqa: S108 - inside
    "/etc/hostname",
    "/etc/hosts",
    "/etc/mtab",
    "/etc/resolv.conf",
)
"""Not the image's: what the runtime mounts itself, and what tells of this machine."""

_LOOK = r"""
image=$1
shift
own=$#
ls "$image/" >/dev/null || exit 1
for entry in "$image"/* "$image"/.[!.]* "$image"/..?* "$image"/etc/* "$image"/etc/.[!.]*; do
  inside=${entry#"$image"}
  case $inside in
    LEFT_OUT) continue ;;
    /etc/*) [ ! -L "$image/etc" ] || continue ;;
  esac
  if [ -L "$entry" ]; then
    target=$(readlink "$entry")
    LINK
  elif [ -e "$entry" ]; then
    BIND
  fi
done
[ $# -gt $own ] || { echo "$image: no image: nothing is in there" >&2; exit 1; }
"""

CAUSES = (
    Cause(
        pattern=r"Not a directory|no image: nothing is in there",
        reason=Reason.IMAGE_FORMAT,
        meaning="what is named as the image is no directory with a system in it",
    ),
)
"""What the shell says of an image that is none."""


def command_in_own_root(
    image: str, *, bind: str, link: str, start: str, options: Sequence[str], prepare: str = ""
) -> tuple[str, ...]:
    """Return a command line that goes through an image's entries and then starts the runtime.

    ``bind`` and ``link`` are shell for one entry each: "$entry" is where it is on the host,
    "$inside" where it goes, and "$target" what a link says. At least the first puts something
    before "$@", which is ``options`` and whatever is appended to the command line. ``prepare``
    comes before all that, ``start`` after it.
    """
    left_out = " | ".join(_LEFT_OUT)
    look = _LOOK.replace("LEFT_OUT", left_out).replace("LINK", link).replace("BIND", bind)
    script = f"{prepare}{look}{start}\n"
    return ("/bin/sh", "-c", script, "sh", checked_image(image), *options)


def quoted(*words: str) -> str:
    """Return words as the shell reads them again."""
    return shlex.join(words)
