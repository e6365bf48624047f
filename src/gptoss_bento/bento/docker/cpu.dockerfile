# vLLM's CPU kernels are linked against libnuma, which a slim Python does not have.
RUN apt-get update && apt-get install -y --no-install-recommends libnuma1 && rm -rf /var/lib/apt/lists/*
RUN command -v uv >/dev/null || pip install --no-cache-dir uv=={uv}
# torch's CPU build is on PyTorch's own index, unless settings of uv that are mounted for the build say otherwise.
RUN mkdir -p /etc/uv && printf '[pip]\nno-deps = true\n' >/etc/uv/uv.toml && \
    { [ -e /root/.config/uv/uv.toml ] || printf 'torch-backend = "cpu"\n' >>/etc/uv/uv.toml; }
