# The inference worker. From the root of the project:
#   docker build -f deploy/docker/worker.Dockerfile -t itemforge-worker .
# A slim base suffices: the torch wheels bring CUDA. The machine brings the driver (docs/operations.md says the
# least one) and the NVIDIA container toolkit. Without a GPU the same image draws on the CPU;
#   --build-arg TORCH_INDEX=https://download.pytorch.org/whl/cpu
# makes one for the CPU alone, several GB smaller.
FROM debian:bookworm-20260824-slim AS build

RUN apt-get update \
    && apt-get install -y --no-install-recommends ca-certificates python3 python3-venv \
    && rm -rf /var/lib/apt/lists/*
RUN python3 -m venv /opt/itemforge
WORKDIR /src
COPY pyproject.toml constraints.txt deploy/docker/requirements.py ./
ARG TORCH_INDEX=""
# wandb: `itemforge models pull tsuki` takes the LoRA from there.
RUN python3 requirements.py worker +wandb > requirements.txt \
    && /opt/itemforge/bin/pip install --no-cache-dir --constraint constraints.txt \
        ${TORCH_INDEX:+--extra-index-url "$TORCH_INDEX"} --requirement requirements.txt
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
ENV HOME=/app ITEMFORGE_HOME=/app ITEMFORGE_LOG_FORMAT=json ITEMFORGE_WORKER_HOST=0.0.0.0
ENV PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1
# What nvidia-container-toolkit hands in: the libraries for CUDA and nvidia-smi, no graphics.
ENV NVIDIA_VISIBLE_DEVICES=all NVIDIA_DRIVER_CAPABILITIES=compute,utility
USER 1000:1000
WORKDIR /app
EXPOSE 9464
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=15s --timeout=5s --start-period=10m --retries=3 \
    CMD ["sh", "-c", "exec python3 /usr/local/bin/ready.py ${ITEMFORGE_WORKER_PORT:-9464}"]
ENTRYPOINT ["/usr/bin/tini", "--", "itemforge"]
CMD ["worker"]
