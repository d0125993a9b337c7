"""What is said to a wrapper, and how a person is told what became of it: pure."""

from __future__ import annotations

import msgspec

from actors.messages import CredentialIssued, CredentialRefused
from actors.ports import LaunchOrder, WrapperExit, WrapperPaths
from transport.messages import (
    ConfinementReported,
    CredentialKind,
    DeliverCredential,
    JobDescription,
    Limits,
    StartJob,
)


def limits_of(description: JobDescription, *, saving_s: float) -> Limits:
    """Return what a job may use."""
    return Limits(
        ttl_s=description.ttl_s,
        saving_s=saving_s,
        memory_bytes=description.memory_bytes,
        disk_bytes=description.disk_bytes,
        cpu_cores=description.cpu_cores,
    )


def start_order(
    order: LaunchOrder,
    paths: WrapperPaths,
    *,
    saving_s: float,
    stop_grace_s: float,
    credentials: tuple[CredentialKind, ...],
) -> StartJob:
    """Return the order to run an attempt, with all paths as the wrapper sees them."""
    count = len(order.description.inputs)
    description = msgspec.structs.replace(
        order.description, inputs=paths.inputs[:count], input_data=paths.inputs[count:]
    )
    return StartJob(
        job_id=order.job_id,
        attempt=order.attempt,
        description=description,
        limits=limits_of(order.description, saving_s=saving_s),
        work_directory=paths.work_directory,
        output_directory=paths.output_directory,
        private_directory=paths.private_directory,
        environment=paths.environment,
        credentials=credentials,
        stop_grace_s=stop_grace_s,
    )


def delivery_of(answer: CredentialIssued | CredentialRefused) -> DeliverCredential:
    """Return what the wrapper is told of the vault's answer."""
    if isinstance(answer, CredentialRefused):
        return DeliverCredential(kind=answer.kind, expires_at=0.0, refusal=answer.why)
    return DeliverCredential(
        kind=answer.kind,
        certificate_chain=answer.certificate_chain,
        token=answer.token,
        expires_at=answer.expires_at,
    )


def told_exit(end: WrapperExit) -> str:
    """Say how the launched process ended."""
    if end.signal is not None:
        return f"was killed by signal {end.signal}"
    code = end.exit_code
    if code is not None and 128 < code < 160:
        # A container runtime passes its child's death on like a shell.
        return f"exited with code {code}, as if killed by signal {code - 128}"
    return f"exited with code {code}"


def told_confinement(report: ConfinementReported) -> str:
    """Say in a line what the wrapper is confined to."""
    namespaces = " ".join(f"{kind}:{inode}" for kind, inode in sorted(report.namespaces.items()))
    return (
        f"confinement: namespaces {namespaces}; uid map {report.uid_map or 'none'}; "
        f"{len(report.mounts)} mounts; cgroup {report.cgroup or 'none'}; "
        f"no_new_privs {'yes' if report.no_new_privileges else 'no'}{_told_own(report)}"
    )


def _told_own(report: ConfinementReported) -> str:
    if report.own_namespaces is None:
        return ""
    kinds = {"pid": "PID", "user": "user", "mnt": "mount"}
    own = "".join(
        f"; own {name} namespace {'yes' if kind in report.own_namespaces else 'no'}"
        for kind, name in kinds.items()
    )
    payload = (
        f", the payload's own ABI {report.payload_landlock}" if report.payload_landlock else ""
    )
    landlock = f"ABI {report.landlock}{payload}" if report.landlock else "no"
    return f"{own}; Landlock {landlock}"
