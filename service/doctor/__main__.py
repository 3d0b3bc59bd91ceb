"""`python -m service.doctor`."""

import sys

from service.doctor.report import main

sys.exit(main())
