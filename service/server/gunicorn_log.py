"""gunicorn's log lines in the form of all others; gunicorn.conf.py names this class."""

from __future__ import annotations

import logging
from typing import Any

from gunicorn.glogging import Logger as GunicornLogger

from service.runtime import log
from service.settings import Settings


class Logger(GunicornLogger):  # type: ignore[misc]
    """Leaves the lines to the root logger, in the master and in its processes."""

    def setup(self, cfg: Any) -> None:
        super().setup(cfg)
        for logger in (self.error_log, self.access_log):
            logger.handlers.clear()
            logger.propagate = True
            logger.setLevel(logging.NOTSET)
        log.configure(Settings.from_env())
