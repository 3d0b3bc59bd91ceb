"""`python -m service.serve`: the `gunicorn` command, for which the settings are checked first.

gunicorn reads WEB_CONCURRENCY when it is imported, before any file of ours: a value that is no
number would end in its traceback.
"""

from __future__ import annotations

import os
import shutil
import sys

from service.errors import SettingError
from service.settings import Settings


def main() -> int:
    """gunicorn's exit code; 2 for a bad setting."""
    try:
        settings = Settings.from_env()
    except SettingError as error:
        print(f"can't start: setting {error}", file=sys.stderr)
        return 2
    os.environ["WEB_CONCURRENCY"] = str(settings.web_concurrency)
    from gunicorn.app import wsgiapp

    # What gunicorn runs anew on SIGUSR2.
    sys.argv[0] = shutil.which("gunicorn") or sys.argv[0]
    return int(wsgiapp.run() or 0)


if __name__ == "__main__":
    sys.exit(main())
