# A compiler is no leftover of the build: Triton and FlashInfer compile kernels for the card when the engine starts.
# nvcc, cuBLAS, cuDNN and NCCL are in the lock.
RUN apt-get update && \
    apt-get install -y --no-install-recommends ca-certificates libnuma1 gcc g++ libc6-dev && \
    rm -rf /var/lib/apt/lists/*
COPY --from=ghcr.io/astral-sh/uv:{uv} /uv /usr/local/bin/uv
RUN mkdir -p /etc/uv && printf '[pip]\nno-deps = true\n' >/etc/uv/uv.toml
