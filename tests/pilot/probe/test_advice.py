from __future__ import annotations

from typing import Any

import pytest

from pilot.containers.runtime import Reason, RuntimeKind
from pilot.probe.advice import Advice, advise
from pilot.probe.facts import Facts, RuntimeFacts
from tests.pilot.probe.factories import CONF, conf, facts, failed, runtime

SETUID = runtime(mode="setuid")
IN_CVMFS = runtime(path="/cvmfs/x/bin/apptainer", in_cvmfs=True)
REFUSED = failed(Reason.NO_USER_NAMESPACE)
DEBIAN = {"ID": "debian"}


def codes(found: Facts) -> list[str]:
    """Return the codes of what is advised."""
    return [advice.code for advice in advise(found)]


def test_a_good_node_needs_no_advice() -> None:
    """Nothing is better than the best."""
    assert advise(facts(runtime())) == ()
    assert advise(facts(SETUID, user_namespace="ENOSPC", max_user_namespaces=0)) == ()


@pytest.mark.parametrize(
    ("found", "code", "line"),
    [
        (runtime(conf=conf("", "enable underlay = no")), "enable-underlay", 2),
        (
            runtime(conf=conf("allow pid ns = no"), own_pid_namespace=False),
            "allow-pid-ns",
            1,
        ),
        (
            failed(Reason.BINDS_FORBIDDEN, conf=conf("", "", "user bind control = no")),
            "user-bind-control",
            3,
        ),
        (
            failed(Reason.NO_USER_NAMESPACE, conf=conf("allow user ns = no")),
            "allow-user-ns",
            1,
        ),
        (
            failed(Reason.IMAGE_FORBIDDEN, conf=conf("", "limit container paths = /x")),
            "limit-container",
            2,
        ),
        (
            failed(Reason.IMAGE_FORBIDDEN, conf=conf("limit container owners = root")),
            "limit-container",
            1,
        ),
        (
            failed(Reason.IMAGE_FORBIDDEN, conf=conf("allow container dir = no")),
            "allow-container",
            1,
        ),
        (
            runtime(mode="setuid", squashfs_works=False, conf=conf("max loop devices = 0")),
            "max-loop-devices",
            1,
        ),
    ],
)
def test_a_directive_is_named_with_its_file_and_line(
    found: RuntimeFacts, code: str, line: int
) -> None:
    """One sentence each, and nothing else."""
    (advice,) = advise(facts(found))

    assert advice.code == code
    assert advice.where == f"{CONF} line {line}"
    assert str(advice).startswith(f"In {CONF} line {line}, ")


def test_the_sentence_is_what_an_administrator_does() -> None:
    """File, line, value, and what for."""
    (advice,) = advise(facts(runtime(conf=conf("enable underlay = no"))))

    assert str(advice) == (
        f"In {CONF} line 1, set 'enable underlay = yes': without underlay a directory that an "
        "image lacks can't be bound but through overlay."
    )


def test_without_either_layer_the_reason_is_another() -> None:
    """Overlay isn't there to do it."""
    read = conf("enable underlay = no", "enable overlay = no")
    (advice,) = advise(facts(runtime(conf=read)))

    assert advice.why.endswith("can't be bound at all")


@pytest.mark.parametrize(
    "found",
    [
        runtime(conf=conf("allow pid ns = no")),
        runtime(conf=conf("user bind control = no")),
        runtime(conf=conf("allow user ns = no")),
        runtime(conf=conf("limit container paths = /x", "allow container dir = no")),
        runtime(conf=conf("max loop devices = 0")),
        runtime(mode="setuid", squashfs_works=False, conf=conf("max loop devices = 8")),
        IN_CVMFS,
        runtime(path="/cvmfs/x", in_cvmfs=True, conf=conf("enable underlay = no")),
        runtime(works=None, conf=None),
    ],
)
def test_what_did_no_harm_is_nobodys_business(found: RuntimeFacts) -> None:
    """A rule speaks only where its cause was seen to matter, and never of CVMFS's own files."""
    assert advise(facts(runtime(), found)) == ()


@pytest.mark.parametrize(
    ("host", "setting"),
    [
        ({"user_namespace": "ENOSPC", "max_user_namespaces": 0}, "user.max_user_namespaces=15000"),
        (
            {"user_namespace": "EPERM", "unprivileged_userns_clone": 0},
            "kernel.unprivileged_userns_clone=1",
        ),
        (
            {"user_namespace": "EACCES", "apparmor_restricts_userns": 1},
            "kernel.apparmor_restrict_unprivileged_userns=0",
        ),
        ({"user_namespace": "ENOSPC", "max_user_namespaces": 9}, "user.max_user_namespaces=15000"),
    ],
)
def test_a_sysctl_is_named_for_now_and_for_good(host: dict[str, Any], setting: str) -> None:
    """Whichever switch the kernel has."""
    advice = next(a for a in advise(facts(REFUSED, **host)) if "sysctl" in a.change)

    name, _, value = setting.partition("=")
    assert f"`sysctl -w {setting}`" in advice.change
    assert f"'{name} = {value}' into /etc/sysctl.d/" in advice.change
    assert advice.code == name


def test_a_container_around_the_pilot_is_blamed_where_no_switch_is_off() -> None:
    """Docker's seccomp profile refuses with EPERM."""
    found = facts(REFUSED, user_namespace="EPERM", max_user_namespaces=100, running_in="Docker")

    assert "surroundings of Docker" in next(
        str(advice) for advice in advise(found) if advice.code == "user-namespaces"
    )


def test_a_runtime_without_setuid_and_namespaces_is_not_called_broken() -> None:
    """It is the kernel that has to change; the file's own switch is named first."""
    found = failed(Reason.NO_USER_NAMESPACE, conf=conf("allow user ns = no"))

    assert codes(facts(found, user_namespace="ENOSPC", max_user_namespaces=0)) == [
        "allow-user-ns",
        "user.max_user_namespaces",
    ]
    assert codes(facts(REFUSED, user_namespace="ENOSPC", max_user_namespaces=0)) == [
        "user.max_user_namespaces"
    ]


@pytest.mark.parametrize(
    "reason",
    [Reason.NO_ANSWER, Reason.FLOODED, Reason.NONSENSE, Reason.SILENT, Reason.WRONG_ANSWER],
)
def test_a_broken_runtime_is_to_be_repaired(reason: Reason) -> None:
    """Even where another one works: it is in PATH, and somebody will use it."""
    (advice,) = advise(facts(failed(reason, "no answer in 5 s"), runtime(path="/opt/apptainer")))

    assert str(advice) == (
        "On the node, repair or reinstall /usr/bin/apptainer: it is there and doesn't work "
        "(no answer in 5 s)."
    )


def test_a_failure_that_no_rule_knows_is_said_as_it_is() -> None:
    """Unless the node is of the best class all the same."""
    unknown = failed(Reason.UNKNOWN, "FATAL: something new")

    assert codes(facts(unknown)) == ["repair-runtime"]
    assert "something new" in advise(facts(unknown))[0].why
    assert codes(facts(unknown, runtime(path="/opt/bin/apptainer"))) == []


@pytest.mark.parametrize(
    ("release", "command"),
    [
        (DEBIAN, "`apt-get install apptainer`"),
        ({"ID": "linuxmint", "ID_LIKE": "ubuntu debian"}, "`apt-get install apptainer`"),
        ({"ID": "almalinux", "ID_LIKE": "rhel centos fedora"}, "`dnf install epel-release"),
        ({"ID": "sles"}, "`zypper install apptainer`"),
        ({}, "with the node's package manager"),
    ],
)
def test_a_node_without_a_runtime_is_told_what_to_install(
    release: dict[str, str], command: str
) -> None:
    """One in CVMFS isn't the node's own."""
    assert command in str(advise(facts(os_release=release))[0])
    assert codes(facts(IN_CVMFS, os_release=release)) == ["install-apptainer"]


def test_image_files_need_fuse_without_setuid() -> None:
    """The device first, then the program."""
    found = runtime(squashfs_works=False, squashfs_detail="squashfuse not found")

    assert codes(facts(found, has_fuse=False)) == ["dev-fuse"]
    assert codes(facts(found, has_fuse=True, os_release=DEBIAN)) == ["squashfuse"]
    assert codes(facts(runtime(squashfs_works=False), has_fuse=True)) == []
    assert codes(facts(runtime(squashfs_works=None), has_fuse=False)) == []


def test_a_uid_without_a_name_is_to_be_given_one() -> None:
    """Apptainer refuses it."""
    assert codes(facts(failed(Reason.UNKNOWN_USER))) == ["passwd-entry"]


def test_a_masked_proc_is_what_keeps_the_pid_namespace_away() -> None:
    """Unless the configuration is, or it was had."""
    without = runtime(own_pid_namespace=False)

    assert codes(facts(without, nested_pid_namespace="no-proc")) == ["nested-pid-namespace"]
    assert codes(facts(runtime(), nested_pid_namespace="no-proc")) == []
    assert codes(facts(without, nested_pid_namespace="yes")) == []
    told = codes(
        facts(
            runtime(own_pid_namespace=False, conf=conf("allow pid ns = no")),
            nested_pid_namespace="EPERM",
        )
    )
    assert told == ["allow-pid-ns"]


def test_a_hung_cvmfs_is_to_be_restarted() -> None:
    """Whatever the class."""
    assert codes(facts(runtime(), cvmfs_hung=True, cvmfs_mounted=None)) == ["cvmfs-hung"]


def test_the_same_advice_is_given_once() -> None:
    """Apptainer and Singularity may read one file."""
    read = conf("enable underlay = no")
    both = (runtime(conf=read), runtime(conf=read, name=RuntimeKind.SINGULARITY, path="/opt/s"))

    assert codes(facts(*both)) == ["enable-underlay"]


def test_a_sentence_has_a_preposition_for_its_place() -> None:
    """In a file, on a node."""
    assert (
        str(Advice(code="c", where="/f line 1", change="do", why="so")) == "In /f line 1, do: so."
    )
    assert str(Advice(code="c", where="the node", change="do", why="so")) == "On the node, do: so."
