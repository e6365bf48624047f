# vLLM and torch for ROCm are in the base image, not in the lock; the environment that BentoML makes sees them through a
# .pth file, behind its own packages.
RUN command -v uv >/dev/null || python3 -m pip install --no-cache-dir uv=={uv}
RUN mkdir -p /etc/uv && printf '[pip]\nno-deps = true\n' >/etc/uv/uv.toml
