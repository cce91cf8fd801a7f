# The API gateway; it has no torch. From the root of the project:
#   docker build -f deploy/docker/gateway.Dockerfile -t itemforge-gateway .
FROM debian:bookworm-20260824-slim AS build

RUN apt-get update \
    && apt-get install -y --no-install-recommends ca-certificates python3 python3-venv \
    && rm -rf /var/lib/apt/lists/*
RUN python3 -m venv /opt/itemforge
WORKDIR /src
COPY pyproject.toml constraints.txt deploy/docker/requirements.py ./
RUN python3 requirements.py gateway > requirements.txt \
    && /opt/itemforge/bin/pip install --no-cache-dir --constraint constraints.txt --requirement requirements.txt
COPY README.md LICENSE NOTICE ./
COPY src src
COPY starter starter
RUN /opt/itemforge/bin/pip install --no-cache-dir --no-deps . \
    && /opt/itemforge/bin/pip check

FROM debian:bookworm-20260824-slim

RUN apt-get update \
    && apt-get install -y --no-install-recommends ca-certificates python3 tini \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --uid 1000 --home-dir /app --shell /usr/sbin/nologin itemforge \
    && install -d -m 1777 -o itemforge -g itemforge /app
COPY --from=build /opt/itemforge /opt/itemforge
COPY deploy/docker/ready.py /usr/local/bin/ready.py
ENV PATH=/opt/itemforge/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
ENV HOME=/app ITEMFORGE_HOME=/app ITEMFORGE_LOG_FORMAT=json ITEMFORGE_HOST=0.0.0.0
ENV PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1
USER 1000:1000
WORKDIR /app
EXPOSE 8000
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=15s --timeout=5s --start-period=30s --retries=3 \
    CMD ["sh", "-c", "exec python3 /usr/local/bin/ready.py ${ITEMFORGE_PORT:-8000} ${ITEMFORGE_TLS_CERT_FILE:+tls}"]
ENTRYPOINT ["/usr/bin/tini", "--", "itemforge"]
CMD ["gateway"]
