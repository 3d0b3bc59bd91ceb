"""Real Redis and MongoDB servers on loopback, for `infra/up` and for the tests.

A server keeps its port and its data over stop and start, so that clients see an outage of the same
server, never a new one.
"""

from infra.servers.mongo import REPLICA_SET, MongoServer
from infra.servers.ports import HOST, can_listen, free_port
from infra.servers.process import ServerError
from infra.servers.redis import RedisServer
from infra.servers.server import Server, last_lines

__all__ = [
    "HOST",
    "REPLICA_SET",
    "MongoServer",
    "RedisServer",
    "Server",
    "ServerError",
    "can_listen",
    "free_port",
    "last_lines",
]
