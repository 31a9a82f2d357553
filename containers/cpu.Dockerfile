# Every recipe at +scale=tiny, on a machine without GPUs.
#   python containers/build.py cpu            which takes BASE from images.yaml
ARG BASE
FROM ${BASE}
SHELL ["/bin/bash", "-o", "errexit", "-o", "nounset", "-o", "pipefail", "-c"]

# bubblewrap: the sandbox's strongest isolation; git: manifests name the commit
RUN apt-get update \
  && apt-get install --yes --no-install-recommends bubblewrap git \
  && rm -rf /var/lib/apt/lists/*

WORKDIR /opt/megatron-recipes
COPY requirements.lock ./
# torch brings 3 GB of CUDA unless TORCH_INDEX names a package index with its CPU wheels
ARG TORCH_INDEX=
RUN python3 -m pip install --no-cache-dir ${TORCH_INDEX:+--extra-index-url "${TORCH_INDEX}"} --requirement requirements.lock

RUN useradd --uid 1000 --create-home recipe
COPY . ./
USER 1000:1000
CMD ["python", "launchers/run.py"]
