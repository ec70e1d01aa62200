# The base is named by its exact version. To hold it to the very bytes, name its digest as well:
#   --build-arg PYTHON_IMAGE=python:3.11.14-slim-bookworm@sha256:...
# Any other image with Python 3.11 or newer and its venv module will do; deploy/image/base.sh makes one of Debian's packages.
ARG PYTHON_IMAGE=python:3.11.14-slim-bookworm

FROM ${PYTHON_IMAGE} AS build
RUN python3 -m venv /opt/swarmkeel && mkdir -p /var/lib/swarmkeel
ENV PIP_CONSTRAINT=/source/constraints.txt PIP_BUILD_CONSTRAINT=/source/constraints.txt \
    PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
WORKDIR /source
COPY pyproject.toml constraints.txt deploy/image/needs.py ./
# hivemind demands torch, which nobody here uses: see needs.py. A secret named pip.conf may say where pip finds packages.
RUN --mount=type=secret,id=pip.conf,target=/etc/pip.conf \
    /opt/swarmkeel/bin/pip install --no-deps hivemind \
    && /opt/swarmkeel/bin/python needs.py > needs.txt \
    && /opt/swarmkeel/bin/pip install --requirement needs.txt
COPY README.md LICENSE hatch_build.py ./
COPY src src
# Once all is installed, nothing can be installed any more; numpy's and scipy's own tests stay behind, too.
RUN --mount=type=secret,id=pip.conf,target=/etc/pip.conf \
    /opt/swarmkeel/bin/pip install --no-deps . \
    && /opt/swarmkeel/bin/pip uninstall --yes pip setuptools \
    && find /opt/swarmkeel/lib/python3*/site-packages/numpy /opt/swarmkeel/lib/python3*/site-packages/scipy \
       -type d -name tests -prune -exec rm -r {} +

# Nothing runs here, so nothing is left behind by what ran.
FROM ${PYTHON_IMAGE}
LABEL org.opencontainers.image.title="swarmkeel" \
      org.opencontainers.image.description="A sidecar that keeps a swarm of GPU servers balanced" \
      org.opencontainers.image.licenses="MIT"
COPY --from=build /opt/swarmkeel /opt/swarmkeel
COPY --from=build --chown=10001:10001 /var/lib/swarmkeel /var/lib/swarmkeel
ENV PATH=/opt/swarmkeel/bin:/usr/local/bin:/usr/bin:/bin HOME=/var/lib/swarmkeel PYTHONDONTWRITEBYTECODE=1
USER 10001:10001
WORKDIR /var/lib/swarmkeel
VOLUME /var/lib/swarmkeel
EXPOSE 9476
# Another port than the default one is seen here only if the environment sets it, not the configuration file.
HEALTHCHECK --interval=30s --timeout=10s --start-period=60s \
    CMD ["python", "-c", "import os, urllib.request; urllib.request.urlopen('http://127.0.0.1:' + os.environ.get('SWARMKEEL_HTTP__PORT', '9476') + '/healthz', timeout=5)"]
ENTRYPOINT ["swarmkeel"]
CMD ["run", "--config", "/etc/swarmkeel/config.yaml"]
