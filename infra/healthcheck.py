"""A container's health check: `python -m infra.healthcheck [web|worker]`.

web: its process answers. worker: the web process at HEALTH_URL knows a live worker on this host.
"""

import json
import os
import socket
import sys
import urllib.request

TIMEOUT_SECONDS = 3


def answer_of(path: str) -> bytes:
    """Raises OSError where the answer is no 2xx, or does not come."""
    default = f"http://127.0.0.1:{os.environ.get('PORT') or 8000}"
    base = os.environ.get("HEALTH_URL", default)
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with direct.open(base + path, timeout=TIMEOUT_SECONDS) as answer:
        body: bytes = answer.read()
        return body


def worker_is_known() -> bool:
    workers = json.loads(answer_of("/health"))["checks"]["workers"]["workers"]
    return any(worker["host"] == socket.gethostname() for worker in workers)


def main(role: str) -> int:
    try:
        healthy = worker_is_known() if role == "worker" else bool(answer_of("/health/live"))
    except (OSError, ValueError, LookupError) as error:
        print(error)
        return 1
    return 0 if healthy else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1] if len(sys.argv) > 1 else "web"))
