"""A trial: one way to run an image, tried with the wrapper's own self-check."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from pilot.bundle import WRAPPER_VARIABLES, Bundle
from pilot.containers.check import Asked, Verification, own_namespace, verify
from pilot.containers.layouts import Layout
from pilot.containers.memory import key_of
from pilot.containers.mounts import (
    JOB_DIRECTORIES,
    ImageTree,
    MountPlan,
    Wanted,
    make_mount_points,
    plan_mounts,
)
from pilot.containers.runtime import Bind, ContainerLaunch, Rung, Runtime
from pilot.containers.sources import look_at_sources
from pilot.images import LocalImage
from transport.errors import OperatorError
from transport.messages import Record


class Way(Record, frozen=True, kw_only=True):
    """One way to run an image on this node."""

    runtime: Runtime
    runtime_state: str
    rung: Rung
    image: LocalImage
    tree: ImageTree
    layout: Layout

    def plan(self, wanted: Wanted) -> MountPlan:
        """Return where everything goes."""
        return plan_mounts(wanted, self.layout.base, self.tree, self.layout.layers)


class Trial(Record, frozen=True, kw_only=True):
    """What trials on this node have in common."""

    bundle: Bundle
    scratch_directory: Path
    """On the node's own disk: for the checks' work directories."""
    make_nonce: Callable[[], str]
    """Returns another string each time."""
    host: Mapping[str, str]
    """The pilot's own environment."""
    site_binds: tuple[Bind, ...] = ()
    """Part of every launch (/cvmfs, say)."""
    timeout_s: float = 30.0

    def key(self, way: Way) -> str:
        """Return by which the outcome is remembered: it holds all that this depends on."""
        return key_of(
            {
                "runtime": way.runtime,
                "runtime_state": way.runtime_state,
                "rung": way.rung,
                "image": (way.image.path, way.image.form, way.image.state, way.image.digest),
                "layout": way.layout,
                "bundle": self.bundle.root.name,
                "site_binds": self.site_binds,
                "kernel": os.uname().release,
                "uid": os.geteuid(),
            }
        )

    async def run(self, way: Way) -> Verification:
        """Run the launch line with the self-check in place of the wrapper.

        Waits for the deadline at most; raises what `Dialect.command` raises, and
        `OperatorError` where there is no room for the check's directories.
        """
        nonce = self.make_nonce()
        kinds = await look_at_sources([bind.source for bind in self.site_binds])
        with self._check_directories(nonce) as root:
            plan = way.plan(
                Wanted(
                    work=f"{root}/work",
                    output=f"{root}/output",
                    private=f"{root}/private",
                    bundle=str(self.bundle.root),
                    mount_tree=f"{root}/mounts",
                    site=self.site_binds,
                    kinds=kinds,
                )
            )
            make_mount_points(plan)
            launch = ContainerLaunch(
                runtime=way.runtime,
                image=way.image.path,
                image_form=way.image.form,
                binds=plan.binds,
                working_directory=plan.work,
                scratch_directory=f"{root}/scratch",
                rung=way.rung,
                environment=WRAPPER_VARIABLES,
            )
            asked = Asked(
                nonce=nonce,
                writable=(plan.work, plan.output, plan.private),
                read_only=(plan.bundle,),
                own_pid_namespace=way.rung.own_pid_namespace,
                host_pid_namespace=own_namespace("pid"),
                host_namespaces={"mnt": own_namespace("mnt")},
            )
            command = (*self.bundle.command(plan.bundle), "check")
            return await verify(launch, command, asked, host=self.host, timeout_s=self.timeout_s)

    @contextmanager
    def _check_directories(self, nonce: str) -> Iterator[str]:
        place = self.scratch_directory
        try:
            root = Path(tempfile.mkdtemp(prefix="check-", dir=place))
            for name in (*JOB_DIRECTORIES, "scratch", "mounts"):
                (root / name).mkdir()
            for name in JOB_DIRECTORIES:
                (root / name / "nonce").write_text(nonce)
        except OSError as error:
            raise OperatorError(
                f"No container can be checked in {place}: {error.strerror}."
            ) from error
        try:
            yield str(root)
        finally:
            shutil.rmtree(root, ignore_errors=True)
