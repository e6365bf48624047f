# Everything after the installation. Without BuildKit, uv's cache would stay; a command of its own name for people inside.
# A platform may choose the user (OpenShift: any uid, in group 0), who has another home, or none. So what is written at run
# time belongs to group 0; and what BentoML would make at its start is there already, where it would end with a traceback
# under a user of another group.
RUN rm -rf /root/.cache && \
    printf '#!/bin/sh\nexec python -m gptoss_bento "$@"\n' >/app/.venv/bin/gptoss-bento && \
    chmod 755 /app/.venv/bin/gptoss-bento && \
    install -d -o bentoml -g 0 -m 775 /home/bentoml /home/bentoml/.cache /home/bentoml/bentos /home/bentoml/models \
        /home/bentoml/envs /home/bentoml/tmp /opt/gptoss-bento /opt/gptoss-bento/jobs
COPY --chown=bentoml:bentoml ./src ./src
RUN python -m compileall -q --invalidation-mode unchecked-hash src

# What is compiled and downloaded at run time goes below /home/bentoml/.cache, which may be a volume.
ENV PYTHONPATH=/home/bentoml/bento/src/src \
    GPTOSS_BENTO_CACHE=/opt/gptoss-bento \
    TIKTOKEN_ENCODINGS_BASE=/opt/gptoss-bento/vocabulary \
    KERNEL_CACHE_DIR=/home/bentoml/.cache/kernels \
    VLLM_NO_USAGE_STATS=1 \
    BENTOML_DO_NOT_TRACK=True \
    HF_HUB_DISABLE_TELEMETRY=1 \
    DO_NOT_TRACK=1

# The model inside: only if MODEL_NAME is given; the demo model always. The token is a secret of this one command.
ARG MODEL_NAME
ARG MODEL_REVISION
ARG TOKENIZER_NAME
ARG TOKENIZER_REVISION
ARG BASE_PATH
ARG QUANTIZATION
ENV MODEL_NAME=$MODEL_NAME \
    MODEL_REVISION=$MODEL_REVISION \
    TOKENIZER_NAME=$TOKENIZER_NAME \
    TOKENIZER_REVISION=$TOKENIZER_REVISION \
    BASE_PATH=$BASE_PATH \
    QUANTIZATION=$QUANTIZATION
ARG HF_ENDPOINT
RUN --mount=type=secret,id=HF_TOKEN HF_TOKEN_PATH=/run/secrets/HF_TOKEN gptoss-bento bake

# Not before: `bake` runs as root, and what it left there nobody else could write.
ENV XDG_CACHE_HOME=/home/bentoml/.cache

HEALTHCHECK --interval=30s --timeout=10s --start-period=20m --retries=3 CMD python -c \
    "import ssl, sys, urllib.request as r; r.urlopen(sys.argv[1], timeout=8, context=ssl._create_unverified_context())" \
    "http${SSL_CERTFILE:+s}://127.0.0.1:${PORT:-3000}/readyz"
