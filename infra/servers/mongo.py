from __future__ import annotations

from typing import Any

from pymongo import MongoClient
from pymongo.database import Database
from pymongo.errors import OperationFailure, PyMongoError

from infra.servers.ports import HOST, listens
from infra.servers.programs import can_load, folders_of
from infra.servers.server import Server, last_lines

REPLICA_SET = "rs0"
NOT_YET_INITIALIZED = 94  # MongoDB's error code for a member without a replica set configuration


class MongoServer(Server):
    """MongoDB as a replica set of one: retryable writes and majority concern need a set."""

    name = "MongoDB"
    program = "mongod"
    packaged = ("fiftyone", "db", "bin", "mongod")
    setting = "MONGODB_URI"

    @property
    def url(self) -> str:
        return self.url_of("pulsequeue")

    def url_of(self, database: str) -> str:
        """The connection string with this database in its path."""
        return f"mongodb://{self._address}/{database}?replicaSet={REPLICA_SET}"

    @property
    def _address(self) -> str:
        return f"{HOST}:{self.port}"

    def _arguments(self) -> list[str]:
        options = {
            "port": str(self.port),
            "bind_ip": HOST,
            "dbpath": str(self.data_dir),
            "replSet": REPLICA_SET,
            "wiredTigerCacheSizeGB": "0.5",
            "oplogSize": "512",  # MB; the default is a share of the disk
        }
        pairs = [word for key, value in options.items() for word in (f"--{key}", value)]
        return [*pairs, "--quiet", "--nounixsocket"]

    def _is_ready(self) -> bool:
        if not listens(self.port):  # asked here, since the driver looks twice a second only
            return False
        client: MongoClient[dict[str, Any]] = MongoClient(
            HOST, self.port, directConnection=True, serverSelectionTimeoutMS=1000
        )
        with client:
            try:
                hello = client.admin.command("hello")
                if hello.get("isWritablePrimary") and hello.get("me") == self._address:
                    return True
                self._form_replica_set(client.admin)
            except PyMongoError:  # not listening yet, or between two states: look again
                pass
        return False

    def _packaged_needs(self) -> list[str]:
        """Shows it the libcurl of PyPI's pycurl where the system has none, as minimal ones do."""
        libraries = [folder.parent / "pycurl.libs" for folder in folders_of("pycurl")]
        packaged = [file for folder in libraries for file in folder.glob("libcurl-*.so.4*")]
        if not packaged or can_load("libcurl.so.4"):
            return []
        link = self.data_dir / "lib" / "libcurl.so.4"
        link.parent.mkdir(exist_ok=True)
        link.unlink(missing_ok=True)
        link.symlink_to(packaged[0])
        return ["env", f"LD_LIBRARY_PATH={link.parent}:{packaged[0].parent}"]

    def _end_of_log(self) -> str:
        """Its errors, if it wrote any: its last words are about shutting down."""
        grave = last_lines(self.log, 5, lambda line: '"s":"E"' in line or '"s":"F"' in line)
        return grave or last_lines(self.log)

    def _form_replica_set(self, admin: Database[dict[str, Any]]) -> None:
        """Makes this server its set's only member: the first time, and after a change of port."""
        members = [{"_id": 0, "host": self._address}]
        try:
            config = admin.command("replSetGetConfig")["config"]
        except OperationFailure as failure:
            if failure.code != NOT_YET_INITIALIZED:
                raise
            admin.command("replSetInitiate", {"_id": REPLICA_SET, "members": members})
            return
        if config["members"][0]["host"] != self._address:
            moved = {**config, "members": members, "version": config["version"] + 1}
            admin.command("replSetReconfig", moved, force=True)
