"""A real PgBouncer for tests, where there is one: installed, or unpacked from Debian's package.

``python -m servers.pgbouncer`` fetches the package by ``apt-get download`` and unpacks it into
``.venv``; nothing is installed, and no rights are needed. Where that does not work it says so, and
tests go through our own pooler alone (``campaigns/pooler.py``).
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Final, Self
from urllib.parse import urlsplit

from servers.postgres import CannotServe, free_port, unprivileged

KEPT: Final = Path(sys.prefix) / "pgbouncer"
_PACKAGES: Final = ("pgbouncer", "libevent-2.1-7", "libc-ares2")
_PATIENCE_S: Final = 20.0
_FETCH_S: Final = 60.0
_SOON: Final = ("-o", "Acquire::http::Timeout=10", "-o", "Acquire::Retries=0")
"""A place without a network is not waited for."""


def pgbouncer() -> Path | None:
    """Give the program, or None where there is none."""
    for name in ("pgbouncer", "/usr/sbin/pgbouncer", str(KEPT / "usr/sbin/pgbouncer")):
        found = shutil.which(name)
        if found is not None and version_of(Path(found)):
            return Path(found)
    return None


def version_of(program: Path) -> str:
    """Say which version it is; nothing where it does not run."""
    done = subprocess.run(
        [program, "-V"], capture_output=True, text=True, check=False, env=_environment()
    )
    found = re.search(r"PgBouncer (\S+)", done.stdout)
    return found[1] if done.returncode == 0 and found else ""


def _environment() -> dict[str, str]:
    """Let it find the libraries that came with it."""
    libraries = {str(one.parent) for one in KEPT.glob("usr/lib/*/*.so*")}
    return {**os.environ, "LD_LIBRARY_PATH": os.pathsep.join(sorted(libraries))}


def fetch() -> str:
    """Unpack Debian's package, where there is none yet; gives what came of it, for people."""
    if (found := pgbouncer()) is not None:
        return f"PgBouncer {version_of(found)} is there: {found}"
    if shutil.which("apt-get") is None or shutil.which("dpkg-deb") is None:
        return "there is no PgBouncer, and no apt-get: tests go through our own pooler alone"
    with tempfile.TemporaryDirectory() as folder:
        if not _download(_PACKAGES[0], folder) and os.geteuid() == 0:
            _run(["apt-get", *_SOON, "update"], folder)
            _download(_PACKAGES[0], folder)
        if list(Path(folder).glob("*.deb")):
            for package in _PACKAGES[1:]:  # one by one: a library may be there, by another name
                _download(package, folder)
        for archive in Path(folder).glob("*.deb"):
            _run(["dpkg-deb", "-x", str(archive), str(KEPT)], folder)
    if (found := pgbouncer()) is not None:
        return f"PgBouncer {version_of(found)} was unpacked: {found}"
    return "PgBouncer could not be fetched: tests go through our own pooler alone"


def _download(package: str, folder: str) -> bool:
    return _run(["apt-get", *_SOON, "download", package], folder)


def _run(command: list[str], folder: str) -> bool:
    """Run a command that may fail, and may not take long."""
    try:
        done = subprocess.run(
            command, cwd=folder, capture_output=True, check=False, timeout=_FETCH_S
        )
    except subprocess.TimeoutExpired:
        return False
    return done.returncode == 0


class Bouncer:
    """A PgBouncer in transaction mode before one database, until it is closed.

    Args:
        program: of PgBouncer.
        direct: the address of the database.
        size: connections to the server.
    """

    def __init__(self, program: Path, direct: str, size: int) -> None:
        parts = urlsplit(direct)
        self.port = free_port()
        user = unprivileged()  # it refuses to be root, as PostgreSQL does
        self._folder = Path(tempfile.mkdtemp(prefix="outlast-pgbouncer-"))
        name = parts.path.strip("/")
        settings = {
            "listen_addr": "127.0.0.1",
            "listen_port": self.port,
            "unix_socket_dir": "",
            "auth_type": "any",
            "pool_mode": "transaction",
            "default_pool_size": size,
            "max_client_conn": 2_000,
            "server_login_retry": 1,  # after a restart of the server; 15 s if it is not said
            "logfile": self._folder / "log",
            "pidfile": self._folder / "pid",
        }
        conf = self._folder / "pgbouncer.ini"
        conf.write_text(
            f"[databases]\n{name} = host={parts.hostname} port={parts.port} dbname={name}"
            f" user={parts.username} password={parts.password}\n[pgbouncer]\n"
            + "".join(f"{key} = {value}\n" for key, value in settings.items())
        )
        if user is not None:
            os.chown(self._folder, *user)
            os.chown(conf, *user)
        as_user = {} if user is None else {"user": user[0], "group": user[1], "extra_groups": []}
        own = self._folder / "pgbouncer"
        shutil.copy(program, own)  # where it may be run by others than us
        libraries = self._folder / "lib"
        libraries.mkdir()
        for library in KEPT.glob("usr/lib/*/*.so*"):
            shutil.copy(library, libraries / library.name)
        self._process = subprocess.Popen(
            [own, conf],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env={**os.environ, "LD_LIBRARY_PATH": str(libraries)},
            **as_user,  # type: ignore[call-overload]
        )
        self._wait()

    def _wait(self) -> None:
        until = time.monotonic() + _PATIENCE_S
        while time.monotonic() < until and self._process.poll() is None:
            try:
                socket.create_connection(("127.0.0.1", self.port), 1).close()
            except OSError:
                time.sleep(0.02)
            else:
                return
        log = self._folder / "log"
        said = log.read_text() if log.exists() else "(no log)"
        self.close()
        raise CannotServe(f"PgBouncer does not come up:\n{said}")

    def close(self) -> None:
        """End it, and take its directory away."""
        self._process.send_signal(signal.SIGTERM)
        self._process.wait(_PATIENCE_S)
        shutil.rmtree(self._folder, ignore_errors=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


if __name__ == "__main__":
    print(fetch())
