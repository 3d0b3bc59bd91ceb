"""gunicorn's settings for the web process. GUNICORN_CMD_ARGS overrides any of them."""

import resource

from service.errors import SettingError
from service.settings import Settings

try:
    _settings = Settings.from_env()
except SettingError as _error:
    raise SystemExit(f"setting {_error}") from None

# A thousand idle connections must not use up the usual 1,024 descriptors.
_hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
if _hard != resource.RLIM_INFINITY:
    resource.setrlimit(resource.RLIMIT_NOFILE, (_hard, _hard))

bind = f"0.0.0.0:{_settings.port}"
workers = _settings.web_concurrency
backlog = 2048

worker_class = "service.server.gunicorn_worker.PulseWorker"  # the ASGI worker, and a little more
asgi_loop = "uvloop"
http_parser = "auto"  # gunicorn_h1c; the pure Python one where that could not be compiled

# Bytes, but for the number of fields. The app bounds the body.
limit_request_line = 8190
limit_request_fields = 64
limit_request_field_size = 8190

# Seconds. A request in flight is finished, one with `Prefer: wait=20` too; Render kills after 30.
graceful_timeout = 25
# Longer than clients and load balancers keep an idle connection (httpx and Node 5, AWS 60): whoever
# closes first must not be the server, or a request that is just coming is lost. At the end of the
# process idle connections are closed at once.
keepalive = 75
timeout = 30  # a process whose event loop stands still for so long is replaced

logger_class = "service.server.gunicorn_log.Logger"
accesslog = None  # the app logs what matters of a request
control_socket_disable = True  # it would lie in the home directory
