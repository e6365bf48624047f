"""The BentoML service. Everything in it comes from the chosen profile in configs/; the work is done in src/.

    bentoml serve                            the profile that suits this machine
    bentoml serve --arg profile=gpt-oss-120b
    PROFILE=gpt-oss-20b bentoml serve

`bentoml build` and BentoML's supervisor import this file too, so it imports neither vLLM nor torch. Only the supervisor
looks at the hardware, for the number of workers that it starts. What happens at the import: server/app.py.
"""

from __future__ import annotations

import sys
from pathlib import Path

import bentoml
from pydantic import BaseModel

sys.path.insert(0, str(Path(__file__).parent / "src"))

from gptoss_bento.bento import service_config
from gptoss_bento.bento.images import Platform
from gptoss_bento.jobs.api.generate import GenerateApi
from gptoss_bento.server.app import assemble


class Arguments(BaseModel, extra="forbid"):
    """What `--arg` takes.

    `platform` is what an image is built for; None: what the profile needs. `bundle_weights` names the model in the
    Bento, so that `bentoml containerize` puts it into the image and BentoCloud brings it along.
    """

    profile: str | None = None
    platform: Platform | None = None
    bundle_weights: bool = False


arguments = bentoml.use_arguments(Arguments)
assembly = assemble(arguments.profile, arguments.platform)


@assembly.with_middlewares
@bentoml.service(name="gptoss-bento", **assembly.options)
@bentoml.asgi_app(assembly.application, path="/")
class GptOss(GenerateApi):
    """GPT-OSS on vLLM: the OpenAI API at /v1, /openai/v1 and /v2/{endpoint_id}/openai/v1, and the job API."""

    if arguments.bundle_weights:
        weights = service_config.weights(assembly.profile)

    def __init__(self) -> None:
        super().__init__(lambda: assembly.worker.jobs)
