# docker build -t finetuning .                           CPU
# docker build -t finetuning --build-arg DEVICE=cuda .   NVIDIA GPU
ARG PYTHON=3.12
FROM python:${PYTHON}-slim

ARG DEVICE=cpu
ENV PYTHONUNBUFFERED=1 HOME=/tmp HF_HOME=/app/models/huggingface
WORKDIR /app

# the packages first: a change of the code does not install them again
COPY requirements.txt requirements-lock.txt ./
SHELL ["/bin/bash", "-o", "pipefail", "-c"]
RUN case "$DEVICE" in \
      cpu) index=https://download.pytorch.org/whl/cpu ;; \
      cuda) index=https://pypi.org/simple ;; \
      *) echo "DEVICE is cpu or cuda, not $DEVICE" >&2; exit 1 ;; \
    esac \
    && pip install --no-cache-dir --index-url "$index" --extra-index-url https://pypi.org/simple \
      "$(grep '^torch==' requirements-lock.txt)" \
    && pip install --no-cache-dir -r requirements.txt -c requirements-lock.txt

COPY *.py config.yaml schema.json LICENSE ./
COPY finetuning finetuning
COPY recipes recipes
COPY examples examples
# what runs write, for whichever user runs the container
RUN mkdir -p models datasets && chmod 777 models datasets

ENTRYPOINT ["python", "finetuning_app.py"]
CMD ["--help"]
