# gloam with its search page. Checked with hadolint; see docs/serve.md for what was not run.
#   docker build -t gloam . && docker run --rm -p 127.0.0.1:8000:8000 -v gallery:/data gloam
FROM python:3.12-slim-bookworm

RUN useradd --uid 10001 --create-home gloam
WORKDIR /opt/gloam
COPY pyproject.toml README.md LICENSE constraints.txt ./
COPY gloam ./gloam
# Every package in the version and with the hash that constraints.txt names; then gloam itself.
RUN pip install --no-cache-dir --require-hashes --requirement constraints.txt \
    && pip install --no-cache-dir --no-deps --no-build-isolation /opt/gloam

USER 10001
ENV GLOAM_CACHE=/tmp/gloam MPLCONFIGDIR=/tmp/matplotlib NUMBA_CACHE_DIR=/tmp/numba
VOLUME ["/data"]
EXPOSE 8000
HEALTHCHECK --interval=30s --timeout=5s --start-period=60s CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8000/readyz', timeout=4)"]
ENTRYPOINT ["gloam"]
CMD ["serve", "/data/people.gallery", "--host", "0.0.0.0", "--token-file", "/run/secrets/gloam_tokens", "--device", "cpu"]
