"""Which system calls a program in a sandbox may not make: seccomp filters, and giving up the powers of root.

Landlock and namespaces guard files and the network. They do not guard other processes of the same user: one call
with another's number slows it, ends it, or takes an open file out of it; nor memory that belongs to no process.
So every program in a sandbox runs under `FORBIDDEN` and `RESTRICTED`, and an answer that shares a run with others
under `ALONE` besides: it can signal nobody.
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import struct
from collections.abc import Mapping
from dataclasses import dataclass

__all__ = ["ALONE", "FORBIDDEN", "RESTRICTED", "Rule", "drop_capabilities", "install", "seccomp_filter"]


@dataclass(frozen=True)
class Rule:
    """When a call is refused: always, or by the low 32 bits of one argument: unless it is one of `only`, when it is
    one of `never`, when it has one of the bits `without`.
    """

    argument: int = 0
    only: tuple[int, ...] = ()
    never: tuple[int, ...] = ()
    without: int = 0
    error: int = errno.EPERM


_FORBIDDEN = (
    # into other processes
    "ptrace process_vm_readv process_vm_writev pidfd_open pidfd_getfd pidfd_send_signal kcmp process_madvise"
    " process_mrelease move_pages migrate_pages setpriority ioprio_set"
    # memory that no limit counts
    " memfd_create memfd_secret shmget shmat shmctl semget semop semctl msgget mq_open keyctl add_key request_key"
    # ways around the sandbox
    " unshare setns mount umount2 pivot_root open_tree move_mount fsopen fsconfig fsmount fspick mount_setattr"
    " open_by_handle_at name_to_handle_at fanotify_init io_uring_setup io_uring_enter io_uring_register bpf"
    " perf_event_open userfaultfd init_module finit_module delete_module kexec_load reboot swapon swapoff quotactl"
    " acct settimeofday clock_settime clock_adjtime adjtimex syslog"
)
FORBIDDEN = tuple(_FORBIDDEN.split())
"""Calls that no program in a sandbox needs."""

NEW_NAMESPACES = 0x7E020080  # CLONE_NEWNS, NEWCGROUP, NEWUTS, NEWIPC, NEWUSER, NEWPID, NEWNET, NEWTIME
RESTRICTED: Mapping[str, Rule] = {
    "prlimit64": Rule(0, only=(0,)),  # of itself; setrlimit is this, too
    "sched_setaffinity": Rule(0, only=(0,)),
    "sched_setparam": Rule(0, only=(0,)),
    "sched_setscheduler": Rule(0, only=(0,)),
    "sched_setattr": Rule(0, only=(0,)),
    "socket": Rule(0, only=(1, 2, 10)),  # AF_UNIX, AF_INET, AF_INET6: those that the sandbox cuts off
    "clone": Rule(0, without=NEW_NAMESPACES),
    "clone3": Rule(error=errno.ENOSYS),  # its flags lie in memory; the C library then takes `clone`
}
"""Calls that a program needs, with the arguments that it may give."""

ALONE: Mapping[str, Rule] = {
    **{name: Rule() for name in ("kill", "tkill", "tgkill", "rt_sigqueueinfo", "rt_tgsigqueueinfo")},
    "clone": Rule(0, without=NEW_NAMESPACES | 0x8000),  # CLONE_PARENT: a child that its grandparent would reap
    "fcntl": Rule(1, never=(8, 10, 15)),  # F_SETOWN, F_SETSIG, F_SETOWN_EX: signals by way of a file
    "ioctl": Rule(1, never=(0x8901, 0x8902)),  # FIOSETOWN, SIOCSPGRP: the same for sockets
}
"""What an answer must not do to the processes that watch it and its neighbours; PR_SET_PTRACER and /proc are nobody's
way in, since `ptrace` is forbidden and /proc is not there."""

_X86_64 = (
    "kill 62 clone 56 fcntl 72 ioctl 16 socket 41 shmget 29 shmat 30 shmctl 31 semget 64 semop 65 semctl 66"
    " msgget 68 ptrace 101 syslog 103 setpriority 141 sched_setparam 142 sched_setscheduler 144 pivot_root 155"
    " adjtimex 159 acct 163 settimeofday 164 mount 165 umount2 166 swapon 167 swapoff 168 reboot 169"
    " init_module 175 delete_module 176 quotactl 179 tkill 200 sched_setaffinity 203 clock_settime 227 tgkill"
    " 234 rt_sigqueueinfo 129 mq_open 240 kexec_load 246 add_key 248 request_key 249 keyctl 250 ioprio_set 251"
    " migrate_pages 256 unshare 272 move_pages 279 rt_tgsigqueueinfo 297 perf_event_open 298 fanotify_init 300"
    " prlimit64 302 name_to_handle_at 303 open_by_handle_at 304 clock_adjtime 305 setns 308 process_vm_readv"
    " 310 process_vm_writev 311 kcmp 312 finit_module 313 sched_setattr 314 memfd_create 319 bpf 321"
    " userfaultfd 323"
)
_AARCH64 = (
    "kill 129 clone 220 fcntl 25 ioctl 29 socket 198 shmget 194 shmat 196 shmctl 195 semget 190 semop 193"
    " semctl 191 msgget 186 ptrace 117 syslog 116 setpriority 140 sched_setparam 118 sched_setscheduler 119"
    " pivot_root 41 adjtimex 171 acct 89 settimeofday 170 mount 40 umount2 39 swapon 224 swapoff 225 reboot 142"
    " init_module 105 delete_module 106 quotactl 60 tkill 130 sched_setaffinity 122 clock_settime 112 tgkill"
    " 131 rt_sigqueueinfo 138 mq_open 180 kexec_load 104 add_key 217 request_key 218 keyctl 219 ioprio_set 30"
    " migrate_pages 238 unshare 97 move_pages 239 rt_tgsigqueueinfo 240 perf_event_open 241 fanotify_init 262"
    " prlimit64 261 name_to_handle_at 264 open_by_handle_at 265 clock_adjtime 266 setns 268 process_vm_readv"
    " 270 process_vm_writev 271 kcmp 272 finit_module 273 sched_setattr 274 memfd_create 279 bpf 280"
    " userfaultfd 282"
)
_BOTH = (
    "pidfd_send_signal 424 io_uring_setup 425 io_uring_enter 426 io_uring_register 427 open_tree 428 move_mount 429"
    " fsopen 430 fsconfig 431 fsmount 432 fspick 433 pidfd_open 434 clone3 435 pidfd_getfd 438 process_madvise 440"
    " mount_setattr 442 memfd_secret 447 process_mrelease 448"
)
_MACHINES = {"x86_64": (0xC000003E, _X86_64), "aarch64": (0xC00000B7, _AARCH64)}
LOAD, EQUAL, AT_LEAST, BITS, RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
ALLOW, REFUSE = 0x7FFF0000, 0x00050000
X32 = 0x40000000


def seccomp_filter(rules: Mapping[str, Rule]) -> bytes:
    """The kernel's program for `rules`. Raises OSError on a processor whose calls are not known here."""
    machine = platform.machine()
    if machine not in _MACHINES:
        raise OSError(errno.ENOSYS, f"the system calls of {machine} are not known, so none can be refused")
    architecture, text = _MACHINES[machine]
    words = f"{text} {_BOTH}".split()
    numbers = dict(zip(words[::2], map(int, words[1::2]), strict=True))
    code = [(LOAD, 0, 0, 4), (EQUAL, 1, 0, architecture), _refuse(), (LOAD, 0, 0, 0), (AT_LEAST, 0, 1, X32), _refuse()]
    for name, rule in rules.items():
        body = _body(rule)
        code += [(EQUAL, 0, len(body), numbers[name]), *body]
    code.append((RETURN, 0, 0, ALLOW))
    return b"".join(struct.pack("HBBI", *step) for step in code)


def _refuse(error: int = errno.EPERM) -> tuple[int, int, int, int]:
    return (RETURN, 0, 0, REFUSE | error)


def _body(rule: Rule) -> list[tuple[int, int, int, int]]:
    """What follows once the call's number is known: it ends in allowing or refusing."""
    if not (rule.only or rule.never or rule.without):
        return [_refuse(rule.error)]
    load, allow, refuse = (LOAD, 0, 0, 16 + 8 * rule.argument), (RETURN, 0, 0, ALLOW), _refuse(rule.error)
    if rule.without:
        return [load, (BITS, 0, 1, rule.without), refuse, allow]
    values, last = (rule.only, [refuse, allow]) if rule.only else (rule.never, [allow, refuse])
    return [load, *((EQUAL, len(values) - i, 0, value) for i, value in enumerate(values)), *last]


def install(program: bytes) -> None:
    """Put this process, and all that it will start, under a filter for good. Raises OSError."""
    libc = ctypes.CDLL(None, use_errno=True)
    steps = ctypes.create_string_buffer(program, len(program))
    head = ctypes.create_string_buffer(struct.pack("HxxxxxxP", len(program) // 8, ctypes.addressof(steps)))
    if libc.prctl(38, 1, 0, 0, 0) or libc.prctl(22, 2, head, 0, 0):  # PR_SET_NO_NEW_PRIVS, PR_SET_SECCOMP
        raise OSError(ctypes.get_errno(), "the kernel refused a filter of system calls")


def drop_capabilities() -> None:
    """Give up what root may do beyond others, for this process and all that it will start. Raises OSError."""
    libc = ctypes.CDLL(None, use_errno=True)
    for capability in range(64):
        libc.prctl(24, capability, 0, 0, 0)  # PR_CAPBSET_DROP, which only root may do and needs
    libc.prctl(47, 4, 0, 0, 0)  # PR_CAP_AMBIENT_CLEAR_ALL
    if libc.capset(struct.pack("Ii", 0x20080522, os.getpid()), bytes(24)):
        raise OSError(ctypes.get_errno(), "the capabilities could not be dropped")
