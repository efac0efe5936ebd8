# diffuse in a container: docs/how-to/containers.md
ARG PYTHON=3.11-slim

FROM python:${PYTHON} AS wheel
WORKDIR /source
COPY pyproject.toml README.md LICENSE ./
COPY diffusecli diffusecli/
COPY prompts prompts/
COPY configs configs/
COPY schemas schemas/
# the secret `pip` is a pip.conf, for an index that needs one; it does not become part of the image
RUN --mount=type=secret,id=pip,target=/etc/pip.conf \
    pip wheel --no-cache-dir --no-deps --wheel-dir /wheels .

FROM python:${PYTHON}
# index with the wanted build of torch (CPU or a CUDA version); empty: the build that the package index has
ARG TORCH_INDEX=""
# extras of the package; nf4 needs a GPU
ARG EXTRAS=report,openai,parquet
COPY constraints.txt /build/
COPY --from=wheel /wheels /build/
RUN --mount=type=secret,id=pip,target=/etc/pip.conf \
    if [ -n "$TORCH_INDEX" ]; then \
        pip install --no-cache-dir --no-deps --index-url "$TORCH_INDEX" --constraint /build/constraints.txt torch; \
    fi && \
    set -- /build/*.whl && \
    pip install --no-cache-dir --constraint /build/constraints.txt "$1[$EXTRAS]"

# any user may write here: `docker run --user` chooses one, who has no name and no home of their own
ENV HOME=/cache XDG_CACHE_HOME=/cache USER=diffuse
RUN useradd --uid 1000 --home-dir /cache --shell /usr/sbin/nologin diffuse && \
    install --directory --mode 1777 /cache /work
VOLUME /cache
WORKDIR /work
USER 1000:1000
ENTRYPOINT ["diffuse"]
CMD ["--help"]
