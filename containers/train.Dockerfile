# Training: NVIDIA's NeMo image (megatron-core, Transformer Engine, Apex), with what this project needs beyond it.
#   python containers/build.py train          which takes BASE and NEMO_SKILLS from images.yaml
ARG BASE
FROM ${BASE}
SHELL ["/bin/bash", "-o", "errexit", "-o", "nounset", "-o", "pipefail", "-c"]

WORKDIR /opt/megatron-recipes
COPY requirements.lock containers/add_missing.py ./
# a commit of github.com/NVIDIA-NeMo/Skills, which is not on PyPI
ARG NEMO_SKILLS
RUN python3 add_missing.py requirements.lock "nemo_skills @ git+https://github.com/NVIDIA-NeMo/Skills.git@${NEMO_SKILLS}"

COPY . ./
RUN python3 -c "import hydra, math_verify, orjson, pyarrow, rensa, sklearn, recipes.run_stage"
USER 1000:1000
