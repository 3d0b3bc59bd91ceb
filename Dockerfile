# One image for both roles: web by default, a worker with the command of the Procfile's `worker:` line.

FROM python:3.12-slim AS build
# gunicorn_h1c comes as source only.
RUN apt-get update \
    && apt-get install --yes --no-install-recommends gcc libc6-dev \
    && rm -rf /var/lib/apt/lists/*
COPY requirements.txt .
RUN python3 -m venv /opt/venv \
    && /opt/venv/bin/pip install --no-cache-dir --disable-pip-version-check -r requirements.txt \
    && /opt/venv/bin/pip uninstall --yes --quiet pip

FROM python:3.12-slim
RUN useradd --uid 10001 --no-create-home --shell /usr/sbin/nologin pulsequeue
COPY --from=build /opt/venv /opt/venv
WORKDIR /app
COPY service service
COPY actors actors
COPY infra infra
ENV PATH=/opt/venv/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    PORT=8000
# The root file system may be read-only: byte code is made here, once.
RUN python -m compileall -q service actors infra
USER pulsequeue
EXPOSE 8000
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=5s --start-period=20s --retries=3 \
    CMD ["python", "-m", "infra.healthcheck", "web"]
CMD ["python", "-m", "service.serve", "-c", "infra/gunicorn.conf.py", "service.app:get_app()"]
