"""A real Slurm on this machine: two nodes, no systemd, loopback alone. It needs root, as its daemons change users."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import threading
import time
from pathlib import Path

PROGRAMS = ("slurmctld", "slurmd", "sbatch", "scontrol", "scancel", "munged")
PACKAGES = ("slurmctld", "slurmd", "slurm-client", "munge", "slurm-wlm-basic-plugins")

CONF = """
ClusterName=local
SlurmctldHost={host}(127.0.0.1)
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge/s,cred_expire=60
CredType=cred/munge
CommunicationParameters=NoInAddrAny,NoCtldInAddrAny
MpiDefault=none
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SchedulerType=sched/backfill
SchedulerParameters=sched_interval=1,bf_interval=1,batch_sched_delay=0
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SlurmdParameters=config_overrides
ReturnToService=2
TreeWidth=65533
SlurmdTimeout=10
KillWait=10
OverTimeLimit=0
SlurmctldPort={port}
SlurmctldPidFile={folder}/slurmctld.pid
SlurmctldLogFile={folder}/slurmctld.log
StateSaveLocation={folder}/state
SlurmdPidFile={folder}/slurmd-%n.pid
SlurmdLogFile={folder}/slurmd-%n.log
SlurmdSpoolDir={folder}/spool-%n
NodeName=n1 NodeHostname={host} NodeAddr=127.0.0.1 Port={first} CPUs=2 RealMemory=4000 State=UNKNOWN
NodeName=n2 NodeHostname={host} NodeAddr=127.0.0.1 Port={second} CPUs=2 RealMemory=4000 State=UNKNOWN
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
PartitionName=main Nodes=n[1-2] Default=YES MaxTime=INFINITE State=UP OverSubscribe=NO PriorityTier=1
PartitionName=urgent Nodes=n[1-2] MaxTime=INFINITE State=UP OverSubscribe=NO PriorityTier=2
"""


def why_not() -> str:
    """Install Slurm where that is possible; say why it cannot be had, or nothing."""
    if os.geteuid() != 0:
        return "Slurm's daemons need root"
    if not all(map(shutil.which, PROGRAMS)) and shutil.which("apt-get"):
        environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
        for words in (("update",), ("install", "--yes", "--no-install-recommends", *PACKAGES)):
            subprocess.run(["apt-get", "-qq", *words], env=environment, check=False, timeout=600, capture_output=True)
    missing = [program for program in PROGRAMS if not shutil.which(program)]
    return f"not to be installed here: {', '.join(missing)}" if missing else ""


class Cluster:
    """Starts the daemons; `close` ends them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._daemons: dict[str, subprocess.Popen[bytes]] = {}
        munge = folder / "munge"
        for name in ("state", "munge", "spool-n1", "spool-n2"):
            (folder / name).mkdir()
        (munge / "munge.key").write_bytes(os.urandom(1024))
        for path in (munge, munge / "munge.key"):
            shutil.chown(path, "munge", "munge")
        munge.chmod(0o711)
        (munge / "munge.key").chmod(0o400)
        for above in munge.parents:  # pytest keeps its folders to root
            if not above.stat().st_mode & 0o011:
                above.chmod(above.stat().st_mode | 0o011)
        options = [f"--{name}={munge / file}" for name, file in (("key-file", "munge.key"), ("socket", "s"))]
        options += [f"--{name}-file={munge / name}" for name in ("pid", "log", "seed")]
        self._start("munged", "runuser", "-u", "munge", "--", "munged", "--foreground", *options)
        self._wait(lambda: (munge / "s").exists(), "munged")
        ports = [_free_port() for _ in range(3)]
        host = socket.gethostname().partition(".")[0]
        self.conf = folder / "slurm.conf"
        self.conf.write_text(CONF.format(folder=folder, host=host, port=ports[0], first=ports[1], second=ports[2]))
        self.environment = {**os.environ, "SLURM_CONF": str(self.conf)}
        self._start("slurmctld", "slurmctld", "-D", "-c", "-f", str(self.conf))
        self._wait(lambda: self._says("scontrol", "ping").count("UP") > 0, "slurmctld")
        for node in ("n1", "n2"):
            self._start_node(node)
        self._wait(lambda: self._idle() == 2, "slurmd")
        self._closing = threading.Event()
        self._hurrying = threading.Thread(target=self._hurry)
        self._hurrying.start()

    def _hurry(self) -> None:
        """Let what goes back into the queue start after some seconds; Slurm would let it wait for two minutes.

        Not at once: a node refuses a credential of the second in which it revoked the one before.
        """
        since: dict[str, float] = {}
        while not self._closing.wait(0.5):
            lines = self._says("squeue", "-h", "-r", "-o", "%i %T %r").splitlines()
            waiting = {line.split()[0] for line in lines if line.endswith(" PENDING BeginTime")}
            now = time.monotonic()
            since = {job: since.get(job, now) for job in waiting}
            for job in [job for job, begin in since.items() if now - begin > 3]:
                self._says("scontrol", "update", f"jobid={job}", "starttime=now")

    def wait_until_idle(self) -> None:
        """End what an earlier test left, start nodes that it killed, and wait until both have nothing to do."""
        self._says("scancel", "--user=root")
        for node in {"n1", "n2"} - self._daemons.keys():
            self._start_node(node)
            self._says("scontrol", "update", f"nodename={node}", "state=resume")
        self._wait(lambda: self._idle() == 2 and not self._says("squeue", "-h"), "an idle cluster")

    def _start_node(self, node: str) -> None:
        self._start(node, "slurmd", "-D", "-c", "-N", node, "-f", str(self.conf))

    def kill_node(self, node: str) -> None:
        """End a node as a power cut does, its daemon and all that it runs, and let the cluster know at once."""
        daemon = self._daemons.pop(node)
        parents, running = _parents(), _steps_of(node)
        keepers = {parents.get(pid, 0) for pid in running} - {0, 1, os.getpid()}
        # All stand still before the first one dies: a power cut leaves nobody to report that a task has failed.
        for number in (signal.SIGSTOP, signal.SIGKILL):
            for pid in {daemon.pid, *keepers, *running, *_below(daemon.pid)}:
                _send(pid, number)
        daemon.wait()
        self._says("scontrol", "update", f"nodename={node}", "state=down", "reason=dead")

    def run(self, *words: str) -> str:
        """Run one of Slurm's programs."""
        done = subprocess.run(words, env=self.environment, capture_output=True, text=True, check=True)
        return done.stdout

    def close(self) -> None:
        """End all daemons, and what they run."""
        self._closing.set()
        self._hurrying.join()
        self._says("scancel", "--user=root")
        for node in ("n1", "n2"):
            if node in self._daemons:
                self.kill_node(node)
        for daemon in self._daemons.values():
            daemon.terminate()
        for daemon in self._daemons.values():
            try:
                daemon.wait(10)
            except subprocess.TimeoutExpired:
                daemon.kill()
                daemon.wait()

    def _idle(self) -> int:
        return len(set(self._says("sinfo", "-h", "-N", "-t", "idle", "-o", "%N").split()))

    def _says(self, *words: str) -> str:
        """Run one of Slurm's programs, which may fail."""
        return subprocess.run(words, env=self.environment, capture_output=True, text=True, check=False).stdout

    def _start(self, name: str, *command: str) -> None:
        environment = getattr(self, "environment", None)
        with (self.folder / f"{name}.out").open("wb") as stream:
            self._daemons[name] = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=stream, stderr=stream, env=environment, start_new_session=True
            )

    def _wait(self, ready: object, name: str) -> None:
        assert callable(ready)
        end = time.monotonic() + 90
        while time.monotonic() < end:
            if ready():
                return
            time.sleep(0.1)
        said = "\n".join(path.read_text(errors="replace")[-800:] for path in self.folder.glob("*.out"))
        raise RuntimeError(f"{name} did not come up:\n{said}")


def _free_port() -> int:
    with socket.socket() as place:
        place.bind(("127.0.0.1", 0))
        return int(place.getsockname()[1])


def _send(pid: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)


def _parents() -> dict[int, int]:
    found = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            found[int(folder.name)] = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
        except (OSError, ValueError, IndexError):
            continue
    return found


def _below(top: int) -> set[int]:
    parents = _parents()
    below = {top}
    while more := {pid for pid, parent in parents.items() if parent in below} - below:
        below |= more
    return below - {top}


def _steps_of(node: str) -> set[int]:
    """Find what Slurm runs on a node: those processes carry its name, and those below them."""
    found = set()
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if f"SLURMD_NODENAME={node}".encode() in (folder / "environ").read_bytes().split(b"\0"):
                found.add(int(folder.name))
        except OSError:
            continue
    return found
