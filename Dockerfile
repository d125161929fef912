# The page with its models. Layers, from the one that changes least: Python on Debian, libGL, the packages (torch for CPUs), the project.
#   docker build -t imagebart . && docker run --rm -p 7860:7860 imagebart
FROM python:3.12-slim AS wheel
WORKDIR /source
COPY pyproject.toml setup.py MANIFEST.in README.md LICENSE requirements.txt app.py ./
COPY imagebart imagebart
COPY checkpoints checkpoints
RUN pip wheel --no-cache-dir --no-deps --wheel-dir /wheels .

FROM python:3.12-slim
RUN apt-get update && apt-get install --yes --no-install-recommends libgl1 libglib2.0-0 && rm -rf /var/lib/apt/lists/*
# Where PyTorch's builds without CUDA are; empty: pip's own, with CUDA, some GB larger.
ARG TORCH_INDEX=""
COPY requirements.txt /tmp/requirements.txt
RUN pip install --no-cache-dir ${TORCH_INDEX:+--extra-index-url "$TORCH_INDEX"} -r /tmp/requirements.txt "mcp>=1.21,<2"
COPY --from=wheel /wheels /tmp/wheels
RUN pip install --no-cache-dir --no-deps /tmp/wheels/*.whl && useradd --uid 1000 --create-home --home-dir /app imagebart
USER imagebart
WORKDIR /app
ENV GRADIO_SERVER_NAME=0.0.0.0 GRADIO_SERVER_PORT=7860
EXPOSE 7860
HEALTHCHECK --interval=30s --timeout=5s --start-period=60s CMD \
    ["python", "-c", "import os, urllib.request as u; u.urlopen('http://127.0.0.1:' + os.environ['GRADIO_SERVER_PORT'] + '/config', timeout=4)"]
CMD ["imagebart", "demo"]
