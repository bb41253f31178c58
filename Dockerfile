# The container of `miras launch`: `docker build -t IMAGE .`, then `docker push IMAGE`.
# For GPUs: --build-arg EXTRAS=cuda,gcs,s3,tokenizers
FROM python:3.12-slim

ARG EXTRAS=tpu,gcs,s3,tokenizers
ENV PYTHONUNBUFFERED=1 PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1

WORKDIR /miras
COPY pyproject.toml constraints.txt PACKAGE.md LICENSE ./
COPY miras miras
RUN pip install -c constraints.txt ".[${EXTRAS}]"

# Run folders are given by --out, and what is prepared is kept here.
WORKDIR /runs
ENV MIRAS_CACHE=/runs/cache
# No entry point: the files of `miras launch` give the whole command, `miras train ...`.
CMD ["miras", "--help"]
