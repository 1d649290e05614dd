# lowlight on the CPU:
#   docker build -t lowlight . && docker run --rm -v "$PWD:/work" lowlight restore IMG_0001.ARW
# On a GPU, with NVIDIA's container toolkit:
#   docker build -t lowlight:cuda --build-arg TORCH_INDEX=https://download.pytorch.org/whl/cu126 .
#   docker run --rm --gpus all -v "$PWD:/work" lowlight:cuda restore IMG_0001.ARW
FROM python:3.11-slim

# The wheels of torch bring the CUDA libraries they need; the driver is the host's.
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
ENV KEDRO_DISABLE_TELEMETRY=1 OMP_WAIT_POLICY=passive PIP_NO_CACHE_DIR=1

WORKDIR /opt/lowlight
COPY pyproject.toml setup.py MANIFEST.in requirements.lock README.md LICENSE ./
RUN pip install --index-url "$TORCH_INDEX" "$(grep '^torch==' requirements.lock)"
COPY src src
COPY conf conf
RUN pip install .

WORKDIR /work
ENTRYPOINT ["lowlight"]
CMD ["--help"]
