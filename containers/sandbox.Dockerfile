# The service that runs the Python that models write, on a machine of its own and nothing else on it.
#   python containers/build.py sandbox        which takes BASE from images.yaml
#   docker run --security-opt seccomp=unconfined --security-opt apparmor=unconfined --volume <run>:<run> \
#     --env SANDBOX_TOKEN <image> <run>/answers/config.yaml --address-file <run>/answers/sandbox.json \
#     --token-env SANDBOX_TOKEN
# whose clients have stages.<name>.sandbox_urls and sandbox_token_env=SANDBOX_TOKEN
ARG BASE
FROM ${BASE}
SHELL ["/bin/bash", "-o", "errexit", "-o", "nounset", "-o", "pipefail", "-c"]

RUN apt-get update \
  && apt-get install --yes --no-install-recommends bubblewrap \
  && rm -rf /var/lib/apt/lists/*

WORKDIR /opt/megatron-recipes
COPY requirements.lock ./
RUN python3 -m pip install --no-cache-dir --constraint requirements.lock \
  numpy omegaconf orjson starlette sympy uvicorn uvloop

RUN useradd --uid 1000 --no-create-home --shell /usr/sbin/nologin sandbox
COPY nemo_ext nemo_ext/
USER 1000:1000
ENTRYPOINT ["python3", "-m", "nemo_ext.sandbox.service"]
