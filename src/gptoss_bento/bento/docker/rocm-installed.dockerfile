RUN env -u VIRTUAL_ENV PATH="${PATH#/app/.venv/bin:}" python3 -c "import site; print(*site.getsitepackages(), sep='\n')" \
    >"$(python -c 'import site; print(site.getsitepackages()[0])')/base-image.pth" && \
    python -c "import importlib.util as i, sys; sys.exit(not i.find_spec('vllm'))"
