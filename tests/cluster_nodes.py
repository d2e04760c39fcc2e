"""Three Ray nodes on this machine with a PostgreSQL and a network between them, and what kills them.

Each node is a network namespace with an address of its own where the rights allow that; else all share the machine's.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

MARK = "HAFS_TEST_NODE"
"""A variable in the environment of all processes of a node: by it they are found."""


def environment(folder: Path) -> dict[str, str]:
    """What programs of the cluster get: a token that they know each other by, and no proxy between them."""
    token = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(folder / "token")}
    own = {"OMP_NUM_THREADS": "1", "RAY_worker_niceness": "0", **token}
    return {k: v for k, v in os.environ.items() if not k.lower().endswith("_proxy")} | own


def can_make_networks() -> bool:
    """Whether this user may make network namespaces."""
    made = subprocess.run(["ip", "netns", "add", f"hafs-try-{os.getpid()}"], capture_output=True, check=False)
    if made.returncode == 0:
        subprocess.run(["ip", "netns", "del", f"hafs-try-{os.getpid()}"], check=False)
    return made.returncode == 0


@dataclass
class Node:
    """A machine of the cluster: its name, its address, how a program is started on it."""

    name: str
    address: str
    prefix: Sequence[str]
    process: subprocess.Popen[bytes] | None = None

    def pids(self, like: str = "") -> list[int]:
        """The processes of this node whose command line begins with `like`."""
        found = []
        for folder in Path("/proc").iterdir():
            if folder.name.isdigit():
                try:
                    mine = f"{MARK}={self.name}\0".encode() in (folder / "environ").read_bytes() + b"\0"
                    if mine and (folder / "cmdline").read_text(errors="replace").startswith(like):
                        found.append(int(folder.name))
                except OSError:
                    continue
        return found

    def kill(self, like: str = "") -> int:
        """Kill those processes; returns how many there were."""
        pids = self.pids(like)
        for pid in pids:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        return len(pids)


@dataclass
class Machines:
    """The nodes, the first of which is the head, and the database that all of them reach."""

    nodes: list[Node]
    gateway: str
    folder: Path
    postgres: str
    own_addresses: bool
    stack: ExitStack = field(default_factory=ExitStack)

    @property
    def address(self) -> str:
        """The cluster's, as `--cluster` takes it on the head."""
        return f"{self.nodes[0].address}:6379"

    @property
    def client_address(self) -> str:
        """The same for a machine that is no node."""
        return f"ray://{self.nodes[0].address}:10001"

    def start(self, node: Node) -> None:
        """Start Ray on a node, and wait until it has joined."""
        head = node is self.nodes[0]
        where = ["--head", "--port=6379", "--ray-client-server-port=10001"] if head else [f"--address={self.address}"]
        ray = [sys.executable, "-m", "ray.scripts.scripts", "start", "--block", f"--node-ip-address={node.address}"]
        argv = [*node.prefix, *ray, *where, "--num-cpus=1", "--disable-usage-stats"]
        argv += [f"--object-store-memory={100 * 2**20}"] + (
            [f"--temp-dir={self.folder}/ray", "--include-dashboard=false"] if head else []
        )
        log = (self.folder / f"{node.name}.log").open("ab")
        env = {**environment(self.folder), MARK: node.name}
        node.process = subprocess.Popen(argv, stdout=log, stderr=log, env=env, start_new_session=True)
        until = time.monotonic() + 120
        while b"Ray runtime started" not in (self.folder / f"{node.name}.log").read_bytes():
            assert node.process.poll() is None and time.monotonic() < until, (
                self.folder / f"{node.name}.log"
            ).read_text()
            time.sleep(0.2)

    def command(self, *argv: str, node: int = 0) -> list[str]:
        """`hafs …` on a node."""
        return [*self.nodes[node].prefix, sys.executable, "-m", "hafs", *argv]


@contextmanager
def network(names: Sequence[str]) -> Iterator[tuple[list[Node], str]]:
    """A namespace with an address for each name, on one bridge; yields them and the bridge's address."""
    base = f"10.{200 + os.getpid() % 50}.{os.getpid() // 50 % 250}"
    bridge = f"hb{os.getpid() % 100000}"

    def ip(*argv: str, check: bool = True) -> None:
        subprocess.run(["ip", *argv], check=check, capture_output=True)

    try:
        ip("link", "add", bridge, "type", "bridge")
        ip("addr", "add", f"{base}.254/24", "dev", bridge)
        ip("link", "set", bridge, "up")
        nodes = []
        for i, name in enumerate(names, 1):
            ip("netns", "add", name)
            ip("link", "add", f"{bridge}v{i}", "type", "veth", "peer", "name", "eth0", "netns", name)
            ip("link", "set", f"{bridge}v{i}", "master", bridge, "up")
            ip("-n", name, "addr", "add", f"{base}.{i}/24", "dev", "eth0")
            ip("-n", name, "link", "set", "eth0", "up")
            ip("-n", name, "link", "set", "lo", "up")
            ip("-n", name, "route", "add", "default", "via", f"{base}.254")
            nodes.append(Node(name, f"{base}.{i}", ["ip", "netns", "exec", name]))
        yield nodes, f"{base}.254"
    finally:
        for name in names:
            ip("netns", "del", name, check=False)
        ip("link", "del", bridge, check=False)


@contextmanager
def postgres(folder: Path, host: str) -> Iterator[str]:
    """A PostgreSQL of Debian's that listens at `host`; else the one that HAFS_TEST_POSTGRES names."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    if not found:
        yield os.environ.get("HAFS_TEST_POSTGRES") or pytest.skip("no PostgreSQL (apt-get install postgresql)")
        return
    tools, data = found[-1].parent, folder / "pg"
    data.mkdir()
    run: list[str] = []
    if os.getuid() == 0:  # the server refuses to run as root
        shutil.chown(data, "postgres")
        run = ["runuser", "-u", "postgres", "--"]
    quiet = {"check": True, "stdout": subprocess.DEVNULL}
    subprocess.run([*run, str(tools / "initdb"), "-D", f"{data}/db", "-U", "postgres", "-A", "trust"], **quiet)  # type: ignore[call-overload]
    with (data / "db" / "pg_hba.conf").open("a") as f:
        f.write("host all all 0.0.0.0/0 trust\n")
    options = f"-k {data} -h {host} -p 55432 -c fsync=off"
    control = [*run, str(tools / "pg_ctl"), "-D", f"{data}/db", "-l", f"{data}/log", "-w"]
    subprocess.run([*control, "-o", options, "start"], **quiet)  # type: ignore[call-overload]
    try:
        yield f"postgresql://postgres@{host}:55432"
    finally:
        subprocess.run([*control, "-m", "immediate", "stop"], stdout=subprocess.DEVNULL, check=False)


@contextmanager
def machines(count: int = 3) -> Iterator[Machines]:
    """A cluster of so many nodes with a core each."""
    folder = Path(tempfile.mkdtemp(prefix="hafs-nodes-", dir="/tmp"))  # short: sockets lie in it
    folder.chmod(0o755)
    (folder / "token").write_text(uuid.uuid4().hex)
    names = [f"hafs-{os.getpid()}-{i}" for i in range(1, count + 1)]
    own = can_make_networks()
    with ExitStack() as stack:
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        nodes, gateway = (
            stack.enter_context(network(names)) if own else ([Node(n, "127.0.0.1", []) for n in names], "127.0.0.1")
        )
        server = stack.enter_context(postgres(folder, gateway))
        made = Machines(nodes, gateway, folder, server, own)
        try:
            for node in nodes:
                made.start(node)
            yield made
        finally:
            for node in nodes:
                node.kill()
