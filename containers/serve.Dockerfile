# A server's own image (TensorRT-LLM, vLLM, SGLang), with what this project's wrapper and the stage beside it need.
#   python containers/build.py serve          which takes BASE from images.yaml
ARG BASE
FROM ${BASE}
SHELL ["/bin/bash", "-o", "errexit", "-o", "nounset", "-o", "pipefail", "-c"]

WORKDIR /opt/megatron-recipes
COPY requirements.lock containers/add_missing.py ./
RUN python3 add_missing.py requirements.lock

COPY . ./
RUN python3 -c "import aiohttp, hydra, math_verify, orjson, psutil, nemo_ext.models.chat_tokenizer, nemo_ext.serving.serve, recipes.run_stage"
# Processes are started as `python`, which some images have under the name python3 only, or for root alone.
RUN command -v python || ln -s "$(command -v python3)" /usr/local/bin/python
USER 1000:1000
RUN python -c "import aiohttp, nemo_ext.serving.serve, recipes.run_stage"
