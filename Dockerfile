# tutelage in a container; the base decides whether torch has CUDA (docs/serve.md).
#   docker build -t tutelage --build-arg TORCH_INDEX=URL .   # CPU; PyTorch names the URL of its CPU wheels
#   docker build -t tutelage-cuda --build-arg BASE=pytorch/pytorch:2.8.0-cuda12.8-cudnn9-runtime .
#   docker run --rm -v "$PWD:/work" tutelage doctor
ARG BASE=python:3.12-slim
FROM ${BASE}

# An index of wheels for torch and torchvision, such as those for CPUs; empty takes what the base has, or
# what pip finds, which has CUDA inside.
ARG TORCH_INDEX=
ARG EXTRAS=demo,timm,detection,export,hub

WORKDIR /src
COPY pyproject.toml README.md LICENSE ./
COPY src ./src
RUN if [ -n "$TORCH_INDEX" ]; then pip install --no-cache-dir --index-url "$TORCH_INDEX" torch torchvision; fi \
    && pip install --no-cache-dir ".[$EXTRAS]"

# Runs as a user, who owns the working folder and the caches.
RUN useradd --create-home tutelage && mkdir /work && chown tutelage /work
USER tutelage
WORKDIR /work
ENTRYPOINT ["tutelage"]
CMD ["--help"]
