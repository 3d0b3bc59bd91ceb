"""`python -m service.worker`: the `dramatiq` command, whose own log lines are as all others.

Dramatiq's outermost process only starts and watches the ones that work. It never imports the
application, so nobody else sets up what it logs: above all, that a process has died.
"""

from __future__ import annotations

import shutil
import sys

from dramatiq import cli

from service.errors import SettingError
from service.runtime import log
from service.settings import Settings


def main() -> int:
    """Dramatiq's exit code; 2 for a bad setting."""
    try:
        log.configure(Settings.from_env())
    except SettingError as error:
        print(f"can't start: setting {error}", file=sys.stderr)
        return 2
    # What Dramatiq runs anew on SIGHUP; it parses what follows.
    sys.argv[0] = shutil.which("dramatiq") or sys.argv[0]
    if "--skip-logging" not in sys.argv:
        sys.argv.append("--skip-logging")
    return int(cli.main() or 0)  # type: ignore[no-untyped-call]


if __name__ == "__main__":
    sys.exit(main())
