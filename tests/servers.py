"""Real servers on a loopback port: the places where results are shared (OpenSSH, one that speaks S3), and MLflow."""

from __future__ import annotations

import getpass
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import pytest

SSHD = shutil.which("sshd") or shutil.which("sshd", path="/usr/sbin:/usr/local/sbin")
KEYS = {"AWS_ACCESS_KEY_ID": "testing", "AWS_SECRET_ACCESS_KEY": "testing", "AWS_DEFAULT_REGION": "us-east-1"}


@dataclass(frozen=True)
class Place:
    """A remote as a user sets it up: its address, what goes into the shared config, what only this machine knows."""

    url: str
    shared: dict[str, str] = field(default_factory=dict)
    local: dict[str, str] = field(default_factory=dict)
    environment: dict[str, str] = field(default_factory=dict)


@contextmanager
def folder(scratch: Path) -> Iterator[Place]:
    yield Place(str(scratch / "a shared folder"))


@contextmanager
def ssh(scratch: Path) -> Iterator[Place]:
    """OpenSSH's own server, with keys made for this test; it lets this user in and nobody else."""
    if SSHD is None:
        pytest.skip("no sshd: install OpenSSH's server")
    scratch.mkdir(parents=True)
    for name in ("host", "user"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(scratch / name)], check=True)
    (scratch / "authorized").write_text((scratch / "user.pub").read_text())
    os.makedirs("/run/sshd", exist_ok=True) if os.geteuid() == 0 else None  # where a root's sshd shuts its children in
    port = free_port()
    options = [f"Port={port}", "ListenAddress=127.0.0.1", f"HostKey={scratch / 'host'}", "PidFile=none", "UsePAM=no"]
    options += [f"AuthorizedKeysFile={scratch / 'authorized'}", "StrictModes=no", "Subsystem=sftp internal-sftp"]
    options += ["PasswordAuthentication=no", "PermitRootLogin=prohibit-password"]
    command = [SSHD, "-D", "-e", "-f", os.devnull, *(word for option in options for word in ("-o", option))]
    with open(scratch / "log", "w") as log, subprocess.Popen(command, stdout=log, stderr=log) as server:
        try:
            wait_for(port, server)
            url = f"ssh://{getpass.getuser()}@127.0.0.1:{port}{scratch / 'storage'}"
            yield Place(url, local={"keyfile": str(scratch / "user")})
        finally:
            server.terminate()


@contextmanager
def s3(scratch: Path) -> Iterator[Place]:
    """A server that speaks S3 (moto), with an empty bucket."""
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        host, port = server.get_host_and_port()
        endpoint = f"http://{host}:{port}"
        subprocess.run(["curl", "-sf", "-X", "PUT", f"{endpoint}/lab"], check=True, capture_output=True)
        yield Place("s3://lab/nullscope", shared={"endpointurl": endpoint}, environment=KEYS)
    finally:
        server.stop()


class Mlflow:
    """MLflow's server with a database in a folder, which keeps the artefacts; it can be killed and started again."""

    def __init__(self, folder: Path, *more: str) -> None:
        self.folder, self.port = folder, free_port()
        self.uri = f"http://127.0.0.1:{self.port}"
        self._command = [sys.executable, "-m", "mlflow", "server", "--workers", "1", "--port", str(self.port)]
        self._command += ["--artifacts-destination", str(folder / "artifacts")]
        self._command += more or ["--backend-store-uri", f"sqlite:///{folder}/mlflow.db"]
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        with open(self.folder / "log", "a") as log:
            environment = {**os.environ, "MLFLOW_DISABLE_TELEMETRY": "true"}
            own = {"cwd": self.folder, "env": environment, "start_new_session": True}
            self._process = subprocess.Popen(self._command, stdout=log, stderr=log, **own)
        deadline = time.monotonic() + 60
        while self._process.poll() is None and time.monotonic() < deadline:
            with suppress(OSError):
                urllib.request.urlopen(f"{self.uri}/health", timeout=2).close()
                return
            time.sleep(0.2)
        raise AssertionError(f"the MLflow server did not start; its log lies in {self.folder}")

    def kill(self) -> None:
        """Kill the server with its workers."""
        if self._process is not None:
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def wait_for(port: int, server: subprocess.Popen[bytes], seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while server.poll() is None and time.monotonic() < deadline:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return
        except OSError:
            time.sleep(0.1)
    raise AssertionError("the server did not start; see its log")
