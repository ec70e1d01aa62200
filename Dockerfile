ARG PYTHON_IMAGE=python:3.11-slim

FROM ${PYTHON_IMAGE} AS build
# Further arguments for pip, such as where to find the CPU build of torch.
ARG PIP_ARGS=""
WORKDIR /source
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY src src
RUN python -m venv /opt/swarmkeel \
    && PIP_CONSTRAINT=constraints.txt PIP_BUILD_CONSTRAINT=constraints.txt \
       /opt/swarmkeel/bin/pip install --no-cache-dir --disable-pip-version-check ${PIP_ARGS} .

FROM ${PYTHON_IMAGE}
RUN useradd --system --uid 10001 --home-dir /var/lib/swarmkeel --create-home --shell /usr/sbin/nologin swarmkeel
COPY --from=build /opt/swarmkeel /opt/swarmkeel
ENV PATH=/opt/swarmkeel/bin:${PATH}
USER 10001
WORKDIR /var/lib/swarmkeel
VOLUME /var/lib/swarmkeel
EXPOSE 9476
# Asks the port that the configuration has by default.
HEALTHCHECK --interval=30s --timeout=10s --start-period=60s \
    CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:9476/healthz', timeout=5)"]
ENTRYPOINT ["swarmkeel"]
CMD ["run", "--config", "/etc/swarmkeel/config.yaml"]
